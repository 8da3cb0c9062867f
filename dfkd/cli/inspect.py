"""`dfkd-inspect FILE`: what a checkpoint holds, which network it fits, and the command that distils it.

Networks are made without memory (on torch's meta device) and compared by layer names and shapes. No code of the file is
run.
"""

import argparse
import json
import re
import shlex
import sys
from pathlib import Path

from dfkd.cli.fits import Fit, all_fits
from dfkd.config.paths import path
from dfkd.errors import ConfigError
from dfkd.machine.environment import prepare_environment
from dfkd.weights import read
from dfkd.weights.entries import Entry, entries, state_dicts, unwrapped

DOMAINS = {(3, 10): "cifar10", (3, 100): "cifar100", (1, 10): "mnist"}
SHOWN = 12  # largest number of entries listed
NONE = "no network of conf/network; another one of timm: network@teacher.network=timm teacher.network.model=NAME"


def cli(words: list[str] | None = None) -> None:
    """Run the command. The exit code is 0 if a network fits, and 1 if none fits or the file cannot be read."""
    parser = argparse.ArgumentParser("dfkd-inspect", description=__doc__.partition(": ")[2])
    parser.add_argument("file", type=path, metavar="FILE", help="a state dict of torch.save, safetensors, or npz")
    file = parser.parse_args(words).file
    try:
        prepare_environment()
        lines, fits = report(file)
    except ConfigError as error:
        sys.exit(f"dfkd-inspect: {error}")
    print("\n".join(lines))
    sys.exit(0 if fits else 1)


def report(file: Path) -> tuple[list[str], list[Fit]]:
    """Return the lines to print about a file, and the networks that it fits.

    Raises:
        ConfigError: the file cannot be read, or has no tensors by name.
    """
    content = read(file)
    all_entries = entries(content)
    if not all_entries:
        raise ConfigError(f"{file} holds no tensors by name; save model.state_dict()")
    fits = all_fits(all_entries)
    words = [f"  {_in_words(fit)}" for fit in fits] or [f"  {NONE}"]
    lines = [str(file), "", "holds", *_contents(content), "", "fits", *words]
    if fits:
        lines += ["", f"mean and std: {_normalisation(file, fits[0].part)}"]
        lines += ["", "to distil it", f"  {command(file, fits[0], fits)}"]
    return lines, fits


def _contents(content: object) -> list[str]:
    """Return a line for each dictionary of tensors."""
    lines = []
    for place, tensors in state_dicts(content):
        part = unwrapped(place, tensors)
        count = sum(value.numel() for value in part.tensors.values())
        extras = [*part.wrappings, *(["a normalisation layer"] if part.mean else [])]
        wrapped = f"; {', '.join(extras)}" if extras else ""
        lines.append(f"  {part.title}: {len(part.tensors)} tensors, {count:,} numbers{wrapped}")
    return lines[:SHOWN] + [f"  and {len(lines) - SHOWN} more"] * (len(lines) > SHOWN)


def _in_words(fit: Fit) -> str:
    options = " ".join(fit.settings.overrides())
    return (
        f"{fit.network}{f' ({options})' if options else ''}: {fit.part.title}, named as in {fit.match.naming}; "
        f"{fit.channels} channels, {fit.classes} classes"
    )


def _normalisation(file: Path, part: Entry) -> str:
    if part.mean:
        return f"in the file: {list(part.mean)} and {list(part.std)}; leave teacher.mean and teacher.std out"
    if beside(file):
        return f"in {file.with_suffix('.json').name} beside it"
    return "not in the file; set teacher.mean and teacher.std to what it was trained with"


def beside(file: Path) -> list[str]:
    """Return overrides with the mean and std from the JSON file that dfkd writes next to weights; [] if there is
    none."""
    try:
        about = json.loads(file.with_suffix(".json").read_text())
        return [f"teacher.{key}=[{','.join(map(str, map(float, about[key])))}]" for key in ("mean", "std")]
    except (OSError, ValueError, TypeError, LookupError):
        return []


def command(file: Path, fit: Fit, fits: list[Fit]) -> str:
    """Return the command that distils an entry of a file, with '...' for values that only the user knows."""
    words = [
        "dfkd",
        "teacher=checkpoint",
        f"teacher.path={quoted(str(file))}",
        f"network@teacher.network={fit.network}",
    ]
    if len({other.part.path for other in fits}) > 1:
        words.append(f"teacher.entry={quoted(fit.part.path)}")
    words += fit.settings.overrides()
    if not fit.part.mean:
        words += beside(file) or ["teacher.mean=[...]", "teacher.std=[...]"]
    domain = DOMAINS.get((fit.channels, fit.classes))
    if domain:
        words += [f"domain@ntl_scenario.id={domain}", "data.root=DIR"]
    else:
        size = [] if fit.settings.size else ["data.size=..."]
        words += ["domain@ntl_scenario.id=image_folder", "ntl_scenario.id.path=DIR", *size]
    return " ".join(shlex.quote(word) for word in [*words, "network@student.network=resnet18", "synthesizer=dfq"])


def quoted(text: str) -> str:
    """Quote a text for Hydra's grammar, if it needs quotes. `${`, which would refer to an option, is escaped."""
    if re.fullmatch(r"[\w./:@%+-]+", text, re.ASCII):
        return text
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", text) + "'"
