"""A cell: one configuration with its name, hash and folder. Imports no torch, so a finished cell is known at once."""

import copy
import math
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from dfkd.config import own_options
from dfkd.config.lookup import value_at
from dfkd.config.names import STAGE_FILE, check_length, check_name
from dfkd.config.paths import expand_homes
from dfkd.config.sources import Sources
from dfkd.errors import ConfigError
from dfkd.metrics import own_content
from dfkd.store.digest import digests_of
from dfkd.store.keys import content_key
from dfkd.store.run_folder import RunFolder

# Sections that stay out of every key: they cannot change a result, or they do so only through the sections that refer
# to them (attack, sizes).
NOT_CONTENT = (
    "runtime", "tracker", "outputs", "limit", "experiment", "debug", "attack", "paper", "dry_run", "fail_fast", "until",
    "stages", "metrics", "sizes",
)  # fmt: skip
# {section: its options that stay out of every key}. The number of siblings does not change a student.
NOT_CONTENT_OPTIONS = {"student": ("replicas",)}
# {(section, option file): {option: value}}: options that the file got after it had made artifacts, with the value that
# means "as before". With that value they stay out of every key, so that these artifacts keep theirs.
ADDED_OPTIONS = {
    ("student", "online_l1"): {"augment": "none"},
    ("synthesizer", "fast"): {"views": "none", "init_std": None},
    ("synthesizer", "nayer"): {"views": "none", "warm_up_renewal": None},
    ("synthesizer", "cmi"): {"views": None, "features": "batch_norms", "init_std": None},
    ("teacher", "supervised"): {"label_smoothing": 0.0},
}
RESULT_VERSION = 5  # to be raised by one when a change of the code changes the numbers of all cells
SECTIONS = ("stages", "metrics", "seeds", "data", "attack", "evaluate", "evaluate.premise", "runtime", "limit")
NAMED = ("ntl_scenario", "ntl_scenario.id", "teacher", "teacher.network", "synthesizer", "student.network", "defense")
GROUPS = ("ntl_scenario", "teacher", "student", "synthesizer", "prior", "noise", "defense")
MADE = ("ntl_scenario", "teacher", "student", "synthesizer", "defense", "tracker")  # groups that become one object
REQUIRED = (
    *("until", "outputs", "seeds.teacher", "seeds.synthesis", "seeds.student"),
    *("data.root", "data.download", "runtime.device"),
    *(f"stages.{name}" for name in ("teacher", "judgement", "premise", "pool", "split", "student")),
)


class Cell:
    """One configuration, resolved.

    Args:
        cfg: as Hydra composed it.

    Attributes:
        config: plain dicts, resolved, with `limit` applied.
        sources: digests of the files and of the user's own code that the configuration names; each is computed once.
        hash: eight hexadecimal digits, a hash of everything that can change the result.
        name: readable name with the hash.
        folder: `<outputs>/runs/<name>`.

    Raises:
        ConfigError: a value is missing or cannot be resolved, or there is no such option.
    """

    def __init__(self, cfg: DictConfig):
        try:
            config = expand_homes(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
        except MissingMandatoryValue as error:
            key = getattr(error, "full_key", None) or str(error).splitlines()[0].rpartition(": ")[2]
            raise ConfigError(f"{key} is missing: set {key}=...") from error
        except OmegaConfBaseException as error:
            raise ConfigError(str(error).splitlines()[0]) from error
        check_form(config)
        own_options.check_known(config, cfg)
        apply_limit(config, config["limit"])
        self.config = config
        self.outputs = Path(config["outputs"])
        self.sources = Sources(digests_of(self.outputs), config["data"].get("root"))
        self.hash = self.key("result", RESULT_VERSION, self.content())[:8]
        scenario, teacher = config["ntl_scenario"], config["teacher"]
        parts = [
            "-".join([scenario["name"], *(scenario[d]["name"] for d in ("id", "ood") if d in scenario)]),
            f"{teacher['name']}-{teacher['network']['name']}",
            f"{config['synthesizer']['name']}-{config['student']['network']['name']}",
            config["defense"]["name"],
            f"s{config['seed']}",
        ]
        self.name = f"{'_'.join(parts)}-{self.hash}"
        check_length(self.name, {f"{key}.name": value_at(config, key)["name"] for key in named(config)})
        self.folder = self.outputs / "runs" / self.name

    def content(self, *groups: str) -> dict:
        """Return the part of the configuration that can change a result (`dfkd.config.cell.content`)."""
        return content(self.config, *groups)

    def key(self, stage: str, version: int, content: dict, inputs: dict[str, str] | None = None) -> str:
        """Return the key of a stage's artifact (`dfkd.store.keys.content_key`). The files and the user's own code that
        the content names are represented by digests of their bytes."""
        return content_key(stage, version, content, inputs, self.sources)

    def finished_result(self) -> dict | None:
        """Return the result of an earlier run of this cell, if that run made the stage `until` and its run folder is
        undamaged; else None.

        Raises:
            Inaccessible: the operating system refuses to read it.
        """
        result = RunFolder(self.folder).undamaged_result()
        if result is None or result.get("hash") != self.hash:
            return None
        made = {*result.get("stages", {}), *(["student"] if "student_digest" in result else [])}
        return result if self.config["until"] in made else None


def cells_of(cfg: DictConfig) -> list[Cell]:
    """Return the cells of a configuration: one, or `student.replicas` of them with consecutive `seeds.student`.

    Raises:
        ConfigError: see `Cell`; or student.replicas is no positive integer.
    """
    first = Cell(cfg)
    count = first.config["student"].get("replicas", 1)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ConfigError(f"student.replicas must be a whole number of at least 1, got {count!r}")
    seed = first.config["seeds"].get("student")
    if count == 1 or "student" not in stages_until(first.config) or not isinstance(seed, int):
        return [first]

    def sibling(index: int) -> Cell:
        own = copy.deepcopy(cfg)
        OmegaConf.update(own, "seeds.student", seed + index)
        return Cell(own)

    return [first, *map(sibling, range(1, count))]


def named(config: dict) -> list[str]:
    """Return the dotted paths of the options whose names make up the name of a cell."""
    return [*NAMED, *(["ntl_scenario.ood"] if "ood" in (config.get("ntl_scenario") or {}) else [])]


def check_form(config: dict) -> None:
    """Raise ConfigError if a group, section or option that every cell needs is missing or has the wrong type."""
    own_options.check_headers(config)
    for group in (*GROUPS, "tracker"):
        value = config.get(group)
        if value is None or (group in MADE and "_target_" not in value):
            raise ConfigError(f"there is no {group}: choose one of its options; `dfkd --help` lists them")
    for section in SECTIONS:
        value = value_at(config, section)
        if not isinstance(value, dict):
            raise ConfigError(f"{section} is a section of options, got {value!r}; set {section}.KEY=VALUE")
    for option in named(config):
        value = value_at(config, option)
        if not isinstance(value, dict):
            raise ConfigError(f"{option} must be one of its options, got {value!r}; `dfkd --help` lists them")
        check_name(f"{option}.name", value.get("name"))
    for key in REQUIRED:
        section, _, name = key.rpartition(".")
        if name not in (value_at(config, section) if section else config):
            raise ConfigError(f"{key} is missing: set {key}=...")
    for stage in config["stages"]:
        check_name("the name of a stage", stage)
        check_length(STAGE_FILE.format(stage), {f"stages.{stage}": stage})
    if not isinstance(config.get("outputs"), str) or not config["outputs"] or "\0" in config["outputs"]:
        raise ConfigError(f"outputs must be the name of a folder, got {config.get('outputs')!r}; set outputs=DIR")
    for key in ("seed", "runtime.precision"):
        if value_at(config, key) is None:
            raise ConfigError(f"{key} is missing: set {key}=...")
    for key in ("dry_run", "fail_fast"):
        if not isinstance(config.get(key), bool):
            raise ConfigError(f"{key} must be true or false, got {config.get(key)!r}")
    if not isinstance(config["seed"], int) or isinstance(config["seed"], bool):
        raise ConfigError(f"seed must be a whole number of at least 0, got {config['seed']!r}")
    for key, value in config["limit"].items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ConfigError(f"limit.{key} must be a number, got {value!r}")


def content(config: dict, *groups: str) -> dict:
    """Return the part of a configuration that can change a result.

    Args:
        config: of a cell, resolved.
        groups: top-level sections to include; all that can change a result if none is named. `data` and the precision
            are always included.
    """
    chosen = {key: value for key, value in config.items() if key not in NOT_CONTENT and (not groups or key in groups)}
    own = {name: node for name, node in config.get("stages", {}).items() if not is_shipped(node)}
    if own and not groups:
        chosen["stages"] = own
    if not groups:
        chosen |= own_content(config) | _audit_content(config)
    chosen = {name: _content_options(name, section) for name, section in chosen.items()}
    data = {key: value for key, value in config["data"].items() if key not in ("root", "download")}
    return chosen | {"data": data, "precision": config["runtime"]["precision"]}


def _audit_content(config: dict) -> dict:
    """Return the options of the audit if the defense asks for one (`defense.audit`), and its student depends on it."""
    options = config.get("stages", {}).get("audit")
    if not options or not config.get("defense", {}).get("audit"):
        return {}
    return {"audit": {key: value for key, value in options.items() if key not in ("_target_", "always")}}


def _content_options(name: str, section: object) -> object:
    """Return the section `name` without the options that `NOT_CONTENT_OPTIONS` and `ADDED_OPTIONS` leave out."""
    if not isinstance(section, dict):
        return section
    added = ADDED_OPTIONS.get((name, str(section.get("name"))), {})
    options = {key: value for key, value in section.items() if key not in NOT_CONTENT_OPTIONS.get(name, ())}
    return {key: value for key, value in options.items() if key not in added or value != added[key]}


def is_shipped(node: dict) -> bool:
    """Return whether the `_target_` of a configuration node, such as a stage, belongs to this package."""
    return str(node.get("_target_")).startswith("dfkd.")


def stages_until(config: dict) -> list[str]:
    """Return the names of the stages up to and including `until`; of all stages if there is no stage of that name."""
    names = list(config["stages"])
    return names[: names.index(config["until"]) + 1] if config["until"] in names else names


def apply_limit(node: object, limit: dict) -> None:
    """Apply the section `limit`: lower every number in `node` whose key is in `limit` to that limit, in place.

    Infinite values are left as they are; `dfkd.stages.checks` refuses them later.
    """
    if isinstance(node, list):
        for item in node:
            apply_limit(item, limit)
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key in limit and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            node[key] = min(value, limit[key])
        elif key != "limit":
            apply_limit(value, limit)
