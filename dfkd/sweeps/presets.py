"""The axes of an experiment or an ablation, and the command that repeats a single cell."""

from dfkd.config.cell import Cell
from dfkd.errors import ConfigError

SIZES = ("paper", "small")  # sizes of a preset


def axes(params: dict | None, small: dict | None, size: str) -> dict[str, str]:
    """Return the axes {key: values} of a preset in one of its sizes.

    Args:
        params: axes of size 'paper'.
        small: axes of size 'small', or None if the preset has no such size.
        size: 'paper' or 'small'.

    Raises:
        ConfigError: the size is unknown, or the preset does not have it.
    """
    if size not in SIZES:
        raise ConfigError(f"hydra.sweeper.size must be {' or '.join(SIZES)}, got {size!r}")
    if size == "small" and not small:
        raise ConfigError(
            "debug=small is the size of an ablation that fits a CPU: dfkd -m ablation=cake/components debug=small; "
            "a run of seconds of anything is debug=smoke"
        )
    return dict((small if size == "small" else params) or {})


def grids(shared: dict[str, str], own: dict[str, dict] | None) -> list[dict[str, str]]:
    """Return the axes {key: values} of every grid of a preset.

    Args:
        shared: axes of every grid.
        own: {name of a grid: its own axes}, which replace shared ones of the same key. None or {}: the preset is one
            grid.
    """
    return [shared | dict(axes) for axes in own.values()] if own else [shared]


def words(axes: dict[str, object]) -> list[str]:
    """Return axes {key: values} as they are typed on the command line."""
    return [f"{key}={'null' if values is None else values}" for key, values in axes.items()]


def single_cell_arguments(repeat: list[str], cell: Cell) -> list[str]:
    """Return the arguments that repeat a single cell of a job, also if the job has several siblings.

    Args:
        repeat: arguments that repeat the whole job.
    """
    student = cell.config["student"]
    if student.get("replicas", 1) == 1:
        return repeat
    others = [word for word in repeat if word.partition("=")[0] not in ("seeds.student", "student.replicas")]
    return [*others, f"seeds.student={cell.config['seeds']['student']}", "student.replicas=1"]
