"""The options of a group, as files."""

from pathlib import Path


def option_names(group: str, folders: list[Path]) -> list[str]:
    """Every option of a group in these configuration folders, those in subfolders too ('cake/mnist')."""
    return sorted(
        {
            str(file.relative_to(folder / group).with_suffix(""))
            for folder in folders
            for file in (folder / group).rglob("*.yaml")
        }
    )
