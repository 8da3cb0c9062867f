"""A cell: one configuration, its name, its hash, its folder. Imports no torch, so a finished cell is known at once."""

import fcntl
import json
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from dfkd.errors import ConfigError
from dfkd.store import content_key, file_digest

# What cannot change a result, or only through what refers to it (attack): it stays out of every key.
NOT_CONTENT = ("runtime", "tracker", "outputs", "limit", "experiment", "debug", "attack")
SECTIONS = ("seeds", "data", "attack", "evaluate", "evaluate.premise", "runtime", "limit")
GROUPS = ("ntl_scenario", "teacher", "student", "synthesizer", "prior", "noise", "defense")


class Cell:
    """One configuration, resolved.

    Args:
        cfg: as Hydra composed it.

    Attributes:
        config: plain dicts, resolved, with `limit` applied.
        hash: eight hexadecimal digits of everything that can change the result.
        name: readable name with the hash.
        folder: `<outputs>/runs/<name>`.

    Raises:
        ConfigError: a value is missing or cannot be resolved.
    """

    def __init__(self, cfg: DictConfig):
        try:
            config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        except MissingMandatoryValue as error:
            key = getattr(error, "full_key", None) or str(error).splitlines()[0].rpartition(": ")[2]
            raise ConfigError(f"{key} is missing: set {key}=...") from error
        except OmegaConfBaseException as error:
            raise ConfigError(str(error).splitlines()[0]) from error
        for section in SECTIONS:
            found = OmegaConf.select(cfg, section)
            if not OmegaConf.is_dict(found):
                raise ConfigError(f"{section} is a section of options, got {found!r}; set {section}.KEY=VALUE")
        lower(config, config["limit"])
        self.config = config
        self.hash = content_key("result", self.content())[:8]
        scenario, teacher = config["ntl_scenario"], config["teacher"]
        parts = [
            "-".join([scenario["name"], *(scenario[d]["name"] for d in ("id", "ood") if d in scenario)]),
            f"{teacher['name']}-{teacher['network']['name']}",
            f"{config['synthesizer']['name']}-{config['student']['network']['name']}",
            config["defense"]["name"],
            f"s{config['seed']}",
        ]
        self.name = f"{'_'.join(parts)}-{self.hash}"
        self.outputs = Path(config["outputs"])
        self.folder = self.outputs / "runs" / self.name

    def content(self, *groups: str) -> dict:
        """What counts of the configuration: everything, or the named groups, with seeds, data and precision."""
        return content(self.config, *groups)

    def finished(self) -> dict | None:
        """The result of this cell if it was finished before and its student is whole, else None."""
        try:
            result = json.loads((self.folder / "result.json").read_text())
            whole = file_digest(self.folder / "student.safetensors") == result["student_digest"]
            return result if whole and result["hash"] == self.hash else None
        except (OSError, ValueError, KeyError):
            return None


def status(folder: Path | str) -> str | None:
    """How the cell of a run folder is doing: 'running', 'done', 'failed' or 'interrupted', as its status.json says;
    'died' where that says 'running', but nobody is (a process that was killed cannot say so); None where none began.

    A run holds the folder's lock as long as it lives. Beside the word, status.json has the process, host and time of
    the beginning, and the error with its traceback.
    """
    folder = Path(folder)
    said = _said(folder)
    if said != "running":
        return said
    try:
        with (folder / ".lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return "died" if _said(folder) == "running" else _said(folder)  # it may have ended meanwhile
    except FileNotFoundError:
        return "died"
    except OSError:  # somebody holds it
        return "running"


def _said(folder: Path) -> str | None:
    try:
        return json.loads((folder / "status.json").read_text())["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def content(config: dict, *groups: str) -> dict:
    """What of a configuration can change a result: everything that does, or the named groups of it, with the data and
    the precision."""
    chosen = {key: value for key, value in config.items() if key not in NOT_CONTENT and (not groups or key in groups)}
    data = {key: value for key, value in config["data"].items() if key not in ("root", "download")}
    return chosen | {"data": data, "precision": config["runtime"]["precision"]}


def lower(node: object, limit: dict) -> None:
    """Lower every number below `node` that stands under a name in `limit` to that limit, in place."""
    if isinstance(node, list):
        for item in node:
            lower(item, limit)
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key in limit and isinstance(value, int | float) and not isinstance(value, bool):
            node[key] = min(value, limit[key])
        elif key != "limit":
            lower(value, limit)
