"""Everything that can go wrong before any work: names, numbers, shapes, files, devices. Then the objects of a run."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from dfkd.build import FAILED, Builder, number
from dfkd.cell import GROUPS, Cell
from dfkd.defenses import Defense
from dfkd.distill import Student
from dfkd.errors import ConfigError
from dfkd.machine import devices, distributed
from dfkd.models import Classifier
from dfkd.priors import Prior, PriorTerm
from dfkd.report import paper
from dfkd.runtime import Runtime, make_runtime, multiplies_bfloat16, seeded
from dfkd.scenarios import Scenario
from dfkd.synthesizers import Synthesizer
from dfkd.tracker import Tracker

# What a component may ask for by naming it in its signature.
FOR_DOMAINS = ("root", "download", "size", "channels", "limit")
CONTEXT = (*FOR_DOMAINS, "shape", "classes", "box", "real", "real_ood", "prior", "noise", "chunk")

UNTIL = ("student", "premise")  # the last stage of a run


@dataclass
class Parts:
    """The objects of one run, checked against each other.

    Attributes:
        teacher: says how the teacher is obtained; `teacher.network` is untrained (or the checkpoint's).
        warnings: what the user should know before time is spent.
    """

    runtime: Runtime
    scenario: Scenario
    teacher: object
    student: Student
    synthesizer: Synthesizer
    defense: Defense
    tracker: Tracker
    warnings: list[str]


def prepare(cell: Cell) -> Parts:
    """Build a cell's objects.

    Raises:
        ConfigError: everything that is wrong, one problem a line.
    """
    config, data = cell.config, cell.config["data"]
    check_names(config).raise_problems()
    if not config["dry_run"]:
        devices.claim(config["runtime"]["device"])
    machine = Builder()
    runtime = machine.call(make_runtime, config["runtime"], "runtime")
    machine.raise_problems()

    sources = Builder(**{key: data[key] for key in FOR_DOMAINS})
    scenario = sources.build(config["ntl_scenario"], "ntl_scenario")
    sources.raise_problems()

    seeds, builder = config["seeds"], _builder(scenario, runtime)
    with seeded(seeds["teacher"], "teacher", "network"):
        teacher = builder.build(config["teacher"], "teacher")
    student = _student(cell, builder)
    defense = builder.build(config["defense"], "defense")
    terms = builder.build(config["prior"], "prior")
    for name, term in terms.items():
        if term is not FAILED and not isinstance(term, PriorTerm):
            builder.problems.append(f"prior.{name}: {term!r} is no prior; to weigh one: prior.{name}.weight={term!r}")
    builder.context["noise"] = builder.build(config["noise"], "noise")
    builder.context["prior"] = FAILED if builder.problems else Prior(terms)
    tracker = builder.build(config["tracker"], "tracker")
    with seeded(seeds["synthesis"], "synthesizer", "network"):
        synthesizer = builder.build(config["synthesizer"], "synthesizer")
    builder.raise_problems()

    parts = Parts(runtime, scenario, teacher, student, synthesizer, defense, tracker, [])
    _check_together(parts, config, builder)
    builder.raise_problems()
    _check_outputs(cell)
    parts.warnings = synthesizer.warnings(teacher.network) + _slow_precision(runtime)
    return parts


def _slow_precision(runtime: Runtime) -> list[str]:
    if runtime.precision != torch.bfloat16 or multiplies_bfloat16(runtime.device):
        return []
    return [
        f"runtime.precision=bfloat16, but this {'GPU' if runtime.device.type == 'cuda' else 'CPU'} has no instructions "
        f"for it and computes it several times as slowly as float32; set runtime.precision=float32, or auto"
    ]


def _builder(scenario: Scenario, runtime: Runtime) -> Builder:
    return Builder(
        shape=scenario.id.shape,
        classes=scenario.id.classes,
        box=scenario.id.box,
        real=scenario.id.train,
        real_ood=None if scenario.ood is None else scenario.ood.train,
        chunk=runtime.chunk,
    )


def _student(cell: Cell, builder: Builder) -> Student:
    with seeded(cell.config["seeds"]["student"], "student", "network"):
        return builder.build(cell.config["student"], "student")


def student_of(cell: Cell, parts: Parts) -> Student:
    """The student of a cell that differs from the one of these parts in its student's seed only."""
    return _student(cell, _builder(parts.scenario, parts.runtime))


def check_names(config: dict) -> Builder:
    """What can be told of a cell's configuration before anything is made: unknown and missing options, values of the
    wrong kind, impossible numbers outside of the groups.

    Returns:
        a builder that has noted the problems.
    """
    check = Builder(**dict.fromkeys(CONTEXT, ...))
    for group in (*GROUPS, "tracker"):
        check.bind(config[group], group)
    check.bind(config["runtime"] | {"_target_": "dfkd.runtime.make_runtime"}, "runtime")
    _check_numbers(config, check.problems)
    check.problems += paper.problems(config)
    return check


def _check_outputs(cell: Cell) -> None:
    try:
        cell.outputs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cell.outputs):
            pass
    except OSError as error:
        raise ConfigError(f"outputs={cell.outputs} cannot be written to ({error.strerror}); set outputs=DIR") from error


def _check_numbers(config: dict, problems: list[str]) -> None:
    """Note impossible values outside of the groups: until, seeds, data, evaluate."""

    def whole(where: str, value: object, low: int) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            problems.append(f"{where} must be a whole number of at least {low}, got {value!r}")

    evaluate, data = config["evaluate"], config["data"]
    if config["until"] not in UNTIL:
        problems.append(f"until must be {' or '.join(UNTIL)}, got {config['until']!r}")
    whole("seed", config["seed"], 0)
    for name, value in config["seeds"].items():
        if value != config["seed"]:
            whole(f"seeds.{name}", value, 0)
    for name in ("checks", "images"):
        whole(f"evaluate.{name}", evaluate.get(name), 1)
    for name in ("steps", "images"):
        whole(f"evaluate.premise.{name}", evaluate["premise"].get(name), 1)
    for name in ("size", "channels", "limit"):
        if data[name] is not None:
            whole(f"data.{name}", data[name], 1)

    def radii(where: str, values: list, above: str, fits: Callable[[float], bool]) -> None:
        for eps in values:
            try:
                right = fits(number(eps))
            except ConfigError:
                right = False
            if not right:
                problems.append(f"{where} must be {above} such as 4/255, got {eps!r}")

    used, measured = config["attack"].get("eps"), evaluate["premise"].get("eps")
    radii("attack.eps", used if isinstance(used, list) else [used], "a number of at least 0", lambda eps: eps >= 0)
    if not isinstance(measured, list) or not measured:
        problems.append(f"evaluate.premise.eps must be a list such as [4/255,8/255], got {measured!r}")
    else:
        radii("evaluate.premise.eps", measured, "positive numbers", lambda eps: eps > 0)


def _check_together(parts: Parts, config: dict, builder: Builder) -> None:
    """Note in the builder what does not fit together."""
    scenario, student = parts.scenario, parts.student

    def fits(network: nn.Module) -> None:
        Classifier(network, scenario.id.shape, scenario.id.classes, scenario.id.mean, scenario.id.std)

    for where, check in (
        ("teacher", lambda: parts.teacher.check(scenario)),
        ("teacher.network", lambda: fits(parts.teacher.network)),
        ("student.network", lambda: fits(student.network)),
        ("synthesizer", lambda: parts.synthesizer.check(parts.teacher.network)),
        ("defense", lambda: parts.defense.check(parts.teacher.network, parts.synthesizer)),
    ):
        try:
            check()
        except ValueError as error:
            builder.problems.append(f"{where}: {error}")
    name = config["synthesizer"]["name"]
    if parts.synthesizer.online and student.steps is None:
        builder.problems.append(f"synthesizer={name} trains the student as it goes: set student.steps (student=online)")
    if parts.synthesizer.online and student.replicas > 1:
        builder.problems.append(
            f"student.replicas={student.replicas} share a finished pool, and synthesizer={name} makes images for one "
            f"student as it goes; for {student.replicas} of them: dfkd -m seeds.student="
            f"{','.join(str(config['seeds']['student'] + place) for place in range(student.replicas))}"
        )
    if parts.synthesizer.needs_box and scenario.id.box is None:
        builder.problems.append(
            f"synthesizer={name} makes images, and '{scenario.id.name}' is a domain of points; choose cake_2d, or "
            f"cake_generator with generator@synthesizer.generator=mlp"
        )
    if student.augment != "none" and scenario.id.box is None:
        builder.problems.append(
            f"student.augment={student.augment} moves pixels; for a domain of points set it to none"
        )
    for column in student.keep:
        if column not in parts.synthesizer.columns:
            known = ", ".join(parts.synthesizer.columns) or "none"
            builder.problems.append(f"student.keep.{column}: synthesizer={name} has no such column (columns: {known})")
    _check_ranks(parts, config, builder.problems)
    if not parts.synthesizer.online and student.epochs is None:
        builder.problems.append(f"synthesizer={name} makes a whole pool first: set student.epochs (student=offline)")


def _check_ranks(parts: Parts, config: dict, problems: list[str]) -> None:
    """Note what several ranks cannot do together."""
    ranks, whole = distributed.ranks(), config["until"] == "student"
    if parts.synthesizer.online and whole and ranks > 1:
        problems.append(
            f"synthesizer={config['synthesizer']['name']} trains the student while it makes images, which {ranks} "
            f"ranks cannot share; start it without torchrun (a cell on each GPU: dfkd -m hydra/launcher=gpus ...)"
        )
    trained = {"teacher": getattr(parts.teacher, "mean_loss", False), "student": whole and parts.defense.mean_loss}
    for name in (name for name, shared in trained.items() if shared):
        size = getattr(parts, name).recipe.batch_size
        if size % ranks:
            problems.append(
                f"{name}.recipe.batch_size={size} cannot be shared evenly by {ranks} ranks; set it to a multiple of "
                f"{ranks}, or torchrun --nproc-per-node to a divisor of {size}"
            )
