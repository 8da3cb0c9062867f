"""From a cell's configuration to the objects of its run; all mistakes are reported at once."""

import functools
import json

from dfkd.config.build import FAILED, Builder
from dfkd.config.cell import Cell
from dfkd.config.memo import Memo
from dfkd.distill import Student
from dfkd.machine import devices
from dfkd.machine.runtime import Runtime, make_runtime, seeded
from dfkd.metrics import COMPUTED, Metric, own_metric
from dfkd.priors import Prior, PriorTerm
from dfkd.scenarios import Scenario
from dfkd.stages.checks import (
    FOR_DOMAINS,
    check_classes,
    check_names,
    check_outputs,
    check_together,
    domain_warnings,
    precision_warnings,
)
from dfkd.stages.components import Components


def prepare(cell: Cell, memo: Memo | None = None) -> Components:
    """Build and check a cell's objects, and claim a device.

    Args:
        memo: for the plan of a sweep, which has checked the names of all its cells: objects of earlier cells, which
            this cell shares, whatever its seeds. They are good for checks and keys, and not for a run.

    Raises:
        ConfigError: all mistakes in the configuration, one per line.
    """
    config, data = cell.config, cell.config["data"]
    if memo is None:
        check_names(config).raise_problems()
    device = config["runtime"]["device"] if config["dry_run"] else devices.claim(config["runtime"]["device"])
    machine = Builder()
    runtime = machine.call(make_runtime, config["runtime"] | {"device": device}, "runtime")
    machine.raise_problems()

    described = [config["ntl_scenario"], {key: data[key] for key in FOR_DOMAINS}]
    scenario = _scenario(json.dumps(described), cell.key("scenario", 1, described))
    check_classes(scenario)
    seeds, builder = config["seeds"], _builder(scenario, runtime, memo)
    with seeded(seeds["teacher"], "teacher", "network"):
        teacher = builder.build(config["teacher"], "teacher")
    student = _student(cell, builder)
    defense = builder.build(config["defense"], "defense")
    terms = builder.build(config["prior"], "prior")
    for name, term in terms.items():
        if term is not FAILED and not isinstance(term, PriorTerm):
            builder.problems.append(f"prior.{name}: {term!r} is no prior; to weigh one: prior.{name}.weight={term!r}")
    builder.context["noise"] = builder.build(config["noise"], "noise")
    builder.context["prior"] = FAILED if builder.problems else builder.once("prior", terms, lambda: Prior(terms))
    tracker = builder.build(config["tracker"], "tracker")
    with seeded(seeds["synthesis"], "synthesizer", "network"):
        synthesizer = builder.build(config["synthesizer"], "synthesizer")
    stages = list(builder.build(config["stages"], "stages").values())
    metrics = _metrics(config["metrics"], builder, {key: data[key] for key in FOR_DOMAINS})
    builder.raise_problems()
    components = Components(runtime, scenario, teacher, student, synthesizer, defense, tracker, stages, metrics)
    check_together(components, config, builder)
    builder.raise_problems()
    check_outputs(cell)
    cell.sources.digests.save()
    doubts = builder.once("data", [scenario], lambda: domain_warnings(scenario))
    components.warnings = doubts + synthesizer.warnings(teacher.network) + precision_warnings(runtime)
    return components


@functools.lru_cache(maxsize=1)
def _scenario(node_and_data: str, key: str) -> Scenario:
    """Return the scenario. The last one is cached with its images: most sweeps have the same scenario in all cells.

    Args:
        node_and_data: JSON of [section `ntl_scenario`, options of `data` that its domains need], since arguments of a
            cached function must be hashable.
        key: stands for the bytes of the files and of the user's own code that they name: after a change of these the
            scenario is built again.
    """
    node, data = json.loads(node_and_data)
    sources = Builder(**data)
    scenario = sources.build(node, "ntl_scenario")
    sources.raise_problems()
    return scenario


def _builder(scenario: Scenario, runtime: Runtime, memo: Memo | None = None) -> Builder:
    return Builder(
        memo,
        shape=scenario.id.shape,
        classes=scenario.id.classes,
        box=scenario.id.modality.box,
        real=scenario.id.train,
        real_ood=None if scenario.ood is None else scenario.ood.train,
        chunk=runtime.chunk,
    )


def _metrics(section: dict, builder: Builder, for_domains: dict) -> tuple[Metric, ...]:
    """Return the metrics of a run: those of the table that are computed in every run, and those of its configuration.

    Args:
        section: the section `metrics`.
        builder: gets the mistakes in its `problems`.
        for_domains: options of `data` that domains need, because a metric may have a domain of its own.
    """
    own, metrics = [], Builder(builder.memo, **(for_domains | builder.context))
    for key, node in section.items():
        where = f"metrics.{key}"
        if not isinstance(node, dict) or not isinstance(node.get("compute"), dict):
            metrics.problems.append(f"{where} must say a label and what computes it: {where}.compute._target_=...")
            continue
        options = metrics.build(node, where)
        if options["compute"] is not FAILED and not callable(options["compute"]):
            metrics.problems.append(
                f"{where}.compute: a {type(options['compute']).__name__} computes nothing of an exam"
            )
        own.append(metrics.call(own_metric, options | {"key": key}, where))
    builder.problems += metrics.problems
    return (*COMPUTED, *own)


def _student(cell: Cell, builder: Builder) -> Student:
    with seeded(cell.config["seeds"]["student"], "student", "network"):
        return builder.build(cell.config["student"], "student")


def student_of(cell: Cell, components: Components) -> Student:
    """Return the student of a cell that differs only in the seed of the student from the cell of `components`."""
    return _student(cell, _builder(components.scenario, components.runtime))
