"""The axes of an experiment or an ablation, and the command that repeats one of its cells alone."""

from dfkd.config.cell import Cell
from dfkd.errors import ConfigError

SIZES = ("paper", "small")  # of a preset


def axes(params: dict | None, small: dict | None, size: str) -> dict[str, str]:
    """{key: values} of a preset in one of its sizes.

    Raises:
        ConfigError: it has no such size.
    """
    if size not in SIZES:
        raise ConfigError(f"hydra.sweeper.size must be {' or '.join(SIZES)}, got {size!r}")
    if size == "small" and not small:
        raise ConfigError(
            "debug=small is the size of an ablation that fits a CPU: dfkd -m ablation=cake/components debug=small; "
            "a run of seconds of anything is debug=smoke"
        )
    return dict((small if size == "small" else params) or {})


def alone(repeat: list[str], cell: Cell) -> list[str]:
    """The arguments that repeat one cell of a job, whatever its number of replicas.

    Args:
        repeat: the job's.
    """
    student = cell.config["student"]
    if student.get("replicas", 1) == 1:
        return repeat
    kept = [word for word in repeat if word.partition("=")[0] not in ("seeds.student", "student.replicas")]
    return [*kept, f"seeds.student={cell.config['seeds']['student']}", "student.replicas=1"]
