"""Everything that can go wrong before any work: names, numbers, shapes, files, devices. Then the objects of a run."""

from dataclasses import dataclass

from torch import nn

from dfkd.build import FAILED, Builder, number
from dfkd.cell import GROUPS, Cell
from dfkd.defenses import Defense
from dfkd.distill import Student
from dfkd.errors import ConfigError
from dfkd.models import Classifier
from dfkd.priors import Prior
from dfkd.runtime import Runtime, make_runtime, seeded
from dfkd.scenarios import Scenario
from dfkd.synthesizers import Synthesizer

# What a component may ask for by naming it in its signature.
FOR_DOMAINS = ("root", "download", "size", "channels", "limit")
CONTEXT = (*FOR_DOMAINS, "shape", "classes", "box", "real", "prior", "noise", "chunk")


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
    warnings: list[str]


def prepare(cell: Cell) -> Parts:
    """Build a cell's objects.

    Raises:
        ConfigError: everything that is wrong, one problem a line.
    """
    config, data = cell.config, cell.config["data"]
    check = Builder(**dict.fromkeys(CONTEXT, ...))
    for group in GROUPS:
        check.bind(config[group], group)
    check.raise_problems()
    try:
        runtime = make_runtime(**config["runtime"])
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error

    _check_evaluation(config["evaluate"])

    sources = Builder(**{key: data[key] for key in FOR_DOMAINS})
    scenario = sources.build(config["ntl_scenario"], "ntl_scenario")
    sources.raise_problems()

    seeds = config["seeds"]
    images = {
        "shape": scenario.id.shape,
        "classes": scenario.id.classes,
        "box": scenario.id.box,
        "real": scenario.id.train,
        "chunk": runtime.chunk,
    }
    builder = Builder(**images)
    with seeded(seeds["teacher"], "teacher", "network"):
        teacher = builder.build(config["teacher"], "teacher")
    with seeded(seeds["student"], "student", "network"):
        student = builder.build(config["student"], "student")
    defense = builder.build(config["defense"], "defense")
    terms = builder.build(config["prior"], "prior")
    builder.context["noise"] = builder.build(config["noise"], "noise")
    if FAILED not in terms.values():
        builder.context["prior"] = Prior(terms)
    with seeded(seeds["synthesis"], "synthesizer", "network"):
        synthesizer = builder.build(config["synthesizer"], "synthesizer")
    builder.raise_problems()

    parts = Parts(runtime, scenario, teacher, student, synthesizer, defense, [])
    _check_together(parts, config, builder)
    builder.raise_problems()
    parts.warnings = synthesizer.warnings(teacher.network)
    return parts


def _check_evaluation(options: dict) -> None:
    """Raise ConfigError for impossible numbers in `evaluate`."""
    for key, value in (
        ("checks", options["checks"]),
        ("images", options["images"]),
        ("premise.steps", options["premise"]["steps"]),
        ("premise.images", options["premise"]["images"]),
    ):
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"evaluate.{key} must be a whole number of at least 1, got {value!r}")
    for eps in options["premise"]["eps"]:
        if number(eps) <= 0:
            raise ConfigError(f"evaluate.premise.eps must be positive, got {eps}")


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
    ):
        try:
            check()
        except ValueError as error:
            builder.problems.append(f"{where}: {error}")
    name = config["synthesizer"]["name"]
    if parts.synthesizer.needs_student and student.steps is None:
        builder.problems.append(f"synthesizer={name} trains the student as it goes: set student.steps (student=online)")
    if not parts.synthesizer.needs_student and student.epochs is None:
        builder.problems.append(f"synthesizer={name} makes a whole pool first: set student.epochs (student=offline)")
