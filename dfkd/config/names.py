"""Checks of names that become part of a path: the options in a run folder's name, and the names of stages."""

import os
import re

from dfkd.config.lookup import one_line
from dfkd.errors import ConfigError
from dfkd.store.access import LONGEST

STAGE_FILE = "profile_{}.json.gz"  # the longest file name that contains the name of a stage


def check_name(where: str, name: object) -> None:
    """Raise ConfigError if a name is no string, or cannot be part of a file name.

    Args:
        where: the key of the configuration that holds the name, for the message.
    """
    if name is None:
        raise ConfigError(f"{where} is missing: set {where}=...")
    if not isinstance(name, str):
        raise ConfigError(f"{where} names a folder and must be a word, got {name!r}; set {where}=NAME")
    possible = re.sub(r"[\s/]+", "_", one_line(name)).lstrip("._") or "NAME"
    if "/" in name or name.startswith(".") or not name.strip() or one_line(name) != name:
        raise ConfigError(
            f"{where}={name!r} names a folder: it must not be empty, begin with a dot, or hold a slash or characters "
            f"that cannot be printed; set {where}={possible}"
        )


def check_length(folder: str, names: dict[str, str]) -> None:
    """Raise ConfigError if a folder's name is too long for a file system.

    Args:
        names: {key: value} of the options that make up the name; the message gives the key of the longest value.
    """
    try:
        length = len(os.fsencode(folder))
    except UnicodeEncodeError as error:
        raise ConfigError(f"the name {folder!r} cannot be written in this locale: set LC_ALL=C.UTF-8") from error
    if length > LONGEST:
        key = max(names, key=lambda key: len(names[key].encode()))
        raise ConfigError(
            f"the name of a folder would have {length} bytes, and file systems take {LONGEST}: {folder}\n"
            f"the longest part of it is {key}: set {key}=... to a shorter one"
        )
