"""The options of a configuration group, listed from its YAML files."""

from pathlib import Path


def option_names(group: str, folders: list[Path]) -> list[str]:
    """Return the sorted names of a group's options in these folders, also of those in subfolders ('cake/mnist')."""
    return sorted(
        {
            str(file.relative_to(folder / group).with_suffix(""))
            for folder in folders
            for file in (folder / group).rglob("*.yaml")
        }
    )
