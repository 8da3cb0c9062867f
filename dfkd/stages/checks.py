"""Checks before anything is computed, of mistakes that no single component can detect by itself."""

import functools
import tempfile
from collections.abc import Callable

from torch import nn

from dfkd.audit import why_not
from dfkd.config import paper
from dfkd.config.build import Builder, nearest, not_finite, number
from dfkd.config.cell import GROUPS, Cell, stages_until
from dfkd.domains import doubts
from dfkd.errors import ConfigError
from dfkd.machine import distributed
from dfkd.machine.runtime import Runtime, multiplies_bfloat16
from dfkd.measures import Measure
from dfkd.models import Classifier, check_training_mode
from dfkd.scenarios import Scenario
from dfkd.stages.audit import AuditStage
from dfkd.stages.components import Components
from dfkd.stages.modality import modality_problems
from dfkd.stages.stage import Stage

# Names of the values that a component gets if its signature has a parameter of that name (`Builder`).
FOR_DOMAINS = ("root", "download", "size", "channels", "limit")
CONTEXT = (*FOR_DOMAINS, "shape", "classes", "box", "real", "real_ood", "prior", "noise", "chunk")


def check_names(config: dict) -> Builder:
    """Check a cell's configuration without building an object: unknown and missing options, values of the wrong type,
    values out of range in `until`, `seeds`, `data`, `attack` and `evaluate`.

    Returns:
        a builder whose `problems` lists all mistakes.
    """
    check = Builder(**dict.fromkeys(CONTEXT, ...))
    check.problems += not_finite(config)
    if check.problems:  # the other checks would report the same values again
        return check
    for group in (*GROUPS, "tracker", "stages", "metrics"):
        check.bind(config[group], group)
    check.bind(config["runtime"] | {"_target_": "dfkd.machine.runtime.make_runtime"}, "runtime")
    _check_numbers(config, check.problems)
    check.problems += paper.problems(config)
    return check


def check_outputs(cell: Cell) -> None:
    """Create the outputs folder, and raise ConfigError if it cannot be written to."""
    try:
        cell.outputs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cell.outputs):
            pass
    except OSError as error:
        raise ConfigError(f"outputs={cell.outputs} cannot be written to ({error.strerror}); set outputs=DIR") from error


def precision_warnings(runtime: Runtime) -> list[str]:
    """Return a warning if the precision is bfloat16 and the device has to emulate it; else an empty list."""
    if runtime.precision != "bfloat16" or multiplies_bfloat16(runtime.device):
        return []
    return [
        f"runtime.precision=bfloat16, but this {'GPU' if runtime.device.type == 'cuda' else 'CPU'} has no instructions "
        f"for it and computes it several times as slowly as float32; set runtime.precision=float32, or auto"
    ]


def _check_numbers(config: dict, problems: list[str]) -> None:
    """Add values out of range in until, seeds, data, attack and evaluate to `problems`."""

    def whole(where: str, value: object, low: int) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            problems.append(f"{where} must be a whole number of at least {low}, got {value!r}")

    evaluate, data = config["evaluate"], config["data"]
    if config["until"] not in list(config["stages"]):
        problems.append(
            f"until={config['until']!r}: there is no such stage{nearest(str(config['until']), config['stages'])}"
        )
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
    if used != "auto":
        values = used if isinstance(used, list) else [used]
        radii("attack.eps", values, "auto, or a number of at least 0", lambda eps: eps >= 0)
    if not isinstance(measured, list) or not measured:
        problems.append(f"evaluate.premise.eps must be a list such as [4/255,8/255], got {measured!r}")
    else:
        radii("evaluate.premise.eps", measured, "positive numbers", lambda eps: eps > 0)


def check_classes(scenario: Scenario) -> None:
    """Raise ConfigError if the ID domain has fewer than two classes."""
    if scenario.id.classes < 2:
        raise ConfigError(
            f"ntl_scenario.id: '{scenario.id.name}' has one class, and a classifier needs at least two to tell apart"
        )


def domain_warnings(scenario: Scenario) -> list[str]:
    """Return the warnings about images and labels that look like a mistake (`dfkd.domains.doubts`)."""
    if scenario.ood is None or scenario.backdoor:  # with a trigger, the OOD images are the ID images
        return doubts(scenario.id)
    return doubts(scenario.id) + doubts(scenario.ood, labels=scenario.shared_labels)


def check_together(components: Components, config: dict, builder: Builder) -> None:
    """Add to the builder's problems all combinations of components that do not fit together."""
    scenario, student = components.scenario, components.student
    images = (scenario.id.shape, scenario.id.classes, scenario.id.mean, scenario.id.std)
    measures = [metric for metric in components.metrics if isinstance(metric.compute, Measure)]

    def fits(where: str, network: nn.Module, is_trained: bool = True) -> None:
        def check() -> None:
            Classifier(network, *images)
            if is_trained:
                check_training_mode(network, scenario.id.shape)

        builder.once(f"{where} fits", [network, is_trained, images], check)

    for where, check in (
        ("teacher", lambda: components.teacher.check(scenario)),
        ("teacher.network", lambda: fits("teacher.network", components.teacher.network, components.teacher.is_trained)),
        ("student.network", lambda: fits("student.network", student.network)),
        ("student.loss", lambda: student.check(components.teacher.network)),
        ("synthesizer", lambda: components.synthesizer.check(components.teacher.network)),
        ("defense", lambda: components.defense.check(components.teacher.network, components.synthesizer)),
        *((f"metrics.{m.key}", functools.partial(m.compute.check, scenario)) for m in measures),
    ):
        try:
            check()
        except ValueError as error:
            builder.problems.append(f"{where}: {error}")
    _check_stages(components, config, builder.problems)
    name = config["synthesizer"]["name"]
    if components.synthesizer.online and student.steps is None:
        builder.problems.append(f"synthesizer={name} trains the student as it goes: set student.steps (student=online)")
    if components.synthesizer.online and student.replicas > 1:
        builder.problems.append(
            f"student.replicas={student.replicas} share a finished pool, and synthesizer={name} makes images for one "
            f"student as it goes; for {student.replicas} of them: dfkd -m seeds.student="
            f"{','.join(str(config['seeds']['student'] + i) for i in range(student.replicas))}"
        )
    builder.problems += modality_problems(components, builder.context["prior"], name)
    for column in student.keep:
        if column not in components.synthesizer.columns:
            known = ", ".join(components.synthesizer.columns) or "none"
            builder.problems.append(f"student.keep.{column}: synthesizer={name} has no such column (columns: {known})")
    _check_ranks(components, config, builder.problems)
    if not components.teacher.is_trained:
        _check_training_split(config, builder.problems)
    if not components.synthesizer.online and student.epochs is None:
        builder.problems.append(f"synthesizer={name} makes a whole pool first: set student.epochs (student=offline)")


def _check_stages(components: Components, config: dict, problems: list[str]) -> None:
    """Add to `problems` objects under `stages` that are no stages, and an `until` with which the run cannot end."""
    for name, stage in zip(config["stages"], components.stages, strict=True):
        if not isinstance(stage, Stage) or stage.name != name:
            message = f"stages.{name} must be a dfkd.stages.Stage with name = '{name}', got {type(stage).__name__}"
            problems.append(message)
    ends = [stage.name for stage in components.stages if stage.may_end]
    if config["until"] not in ends:
        problems.append(f"until={config['until']}: a run cannot end there; choose one of {', '.join(ends)}")
    known = components.scenario.id
    audited = any(isinstance(s, AuditStage) and (s.always or config["until"] == s.name) for s in components.stages)
    if audited and (why := why_not(known.classes, known.modality.has_pixels)):
        problems.append(f"until=audit: {why}; set until to another stage, and stages.audit.always=false")
    elif components.defense.needs_audit and (why := why_not(known.classes, known.modality.has_pixels)):
        problems.append(f"defense={config['defense']['name']}: {why}; set defense.audit=false")
    if components.defense.needs_audit and not any(isinstance(stage, AuditStage) for stage in components.stages):
        problems.append(
            f"defense={config['defense']['name']} needs stages.audit, which is missing; set defense.audit=false"
        )
    if config["until"] == "leakage" and components.synthesizer.online and components.student.samples is None:
        problems.append(
            f"until=leakage: synthesizer={config['synthesizer']['name']} keeps only as many images as a figure "
            f"shows; set student.samples=1000, say"
        )
    if config["until"] in ("pool", "split") and components.synthesizer.online:
        problems.append(
            f"until={config['until']}: synthesizer={config['synthesizer']['name']} trains the student while it makes "
            f"images, there is no such stage"
        )


def _check_training_split(config: dict, problems: list[str]) -> None:
    """Add to `problems` options of the ID domain's training split that only a teacher trained here would see."""
    where, domain = "ntl_scenario.id", config["ntl_scenario"]["id"]
    while isinstance(domain, dict):  # a restyled domain has its options below `of`
        for option in ("imbalance", "label_noise"):
            if domain.get(option) is not None:
                problems.append(
                    f"{where}.{option}={domain[option]} changes what a teacher is trained on, and "
                    f"teacher={config['teacher']['name']} is not trained; leave it out"
                )
        where, domain = f"{where}.of", domain.get("of")


def _check_ranks(components: Components, config: dict, problems: list[str]) -> None:
    """Add to `problems` what several ranks cannot compute together."""
    ranks, whole = distributed.ranks(), "student" in stages_until(config)
    if components.synthesizer.online and whole and ranks > 1:
        problems.append(
            f"synthesizer={config['synthesizer']['name']} trains the student while it makes images, which {ranks} "
            f"ranks cannot share; start it without torchrun (a cell on each GPU: dfkd -m hydra/launcher=gpus ...)"
        )
    trained = {"teacher": components.teacher.mean_loss, "student": whole and components.defense.mean_loss}
    for name in (name for name, shared in trained.items() if shared):
        size = getattr(components, name).recipe.batch_size
        if size % ranks:
            problems.append(
                f"{name}.recipe.batch_size={size} cannot be shared evenly by {ranks} ranks; set it to a multiple of "
                f"{ranks}, or torchrun --nproc-per-node to a divisor of {size}"
            )
