"""Which stages a cell has, what each is made of and what feeds it: known before any of them is made."""

from dataclasses import dataclass

from dfkd.build import number
from dfkd.cell import Cell
from dfkd.preflight import Parts
from dfkd.store import content_key


@dataclass(frozen=True)
class Stage:
    """One stage of a cell.

    Attributes:
        name: 'teacher', 'premise', 'pool', 'split' or 'student'.
        content: what of the configuration it is made of.
        inputs: keys of the stages that feed it, by name.
    """

    name: str
    content: dict
    inputs: dict[str, str]

    @property
    def key(self) -> str:
        """Where it lies in the store."""
        return content_key(self.name, self.content, self.inputs)


def premise_radii(config: dict, parts: Parts) -> list[float]:
    """The radii at which the premise is measured, in ascending order: `evaluate.premise.eps` and the one that the
    defense attacks with. A defense without an attack measures at `attack.eps`, too, so that all share one premise."""
    radii = {number(eps) for eps in config["evaluate"]["premise"]["eps"]}
    used = config["attack"]["eps"] if parts.defense.radius is None else parts.defense.radius
    if not isinstance(used, list):
        radii.add(number(used))
    return sorted(radii)


def stage_graph(cell: Cell, parts: Parts) -> dict[str, Stage]:
    """The stages of a cell by name, in the order in which they are made.

    Args:
        parts: the cell's objects, as `prepare` built them; nothing has to be trained.
    """
    config, graph = cell.config, {}
    seeds, scenario, defense = config["seeds"], config["ntl_scenario"], config["defense"]

    def add(name: str, content: dict, *inputs: str) -> None:
        graph[name] = Stage(name, content, {i: graph[i].key for i in inputs})

    # An ordinary teacher does not depend on the OOD domain: all scenarios of its ID domain share it.
    domains = scenario if getattr(parts.teacher, "needs_ood", True) else scenario["id"]
    add("teacher", cell.content("teacher") | {"domains": domains, "seed": seeds["teacher"]})

    attack = {"eps": premise_radii(config, parts), "seed": seeds["teacher"]}
    attack |= {key: config["evaluate"]["premise"][key] for key in ("steps", "images")}
    add("premise", cell.content("ntl_scenario") | attack, "teacher")

    if config["until"] == "premise":
        return graph

    # The pool of an offline synthesizer depends on no student: all share it.
    synthesis = cell.content("synthesizer", "prior", "noise") | {"seed": seeds["synthesis"]}
    if not parts.synthesizer.online:
        add("pool", synthesis, "teacher")
        # A split depends on the criterion only, where the defense has one: all its losses share it.
        split = {"criterion": defense.get("criterion", defense), "seed": seeds["synthesis"]}
        if parts.defense.uses_real_data:  # an ordinary teacher and its pool are the same whatever the OOD domain
            split |= cell.content("ntl_scenario")
        add("split", split, "pool")

    checks = {key: config["evaluate"][key] for key in ("checks", "images")}
    student = cell.content("student", "defense", "ntl_scenario", "seeds") | {"synthesis": synthesis} | checks
    add("student", student, *(("teacher",) if parts.synthesizer.online else ("pool", "split")))
    return graph
