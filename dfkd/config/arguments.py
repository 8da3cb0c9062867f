"""Command-line arguments: reordered and quoted for Hydra, and messages about those that Hydra cannot read."""

import re
import shlex

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from dfkd.config.paths import expand_home

ITEM = re.compile(r"""(=|,|\[)(~(?:/[^,\[\]{}()"']*)?)(?=,|\]|$)""")  # a path in the home folder, unquoted
TYPOGRAPHIC = str.maketrans({"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'"})
FUNCTION = re.compile(r"(choice|range|interval|tag|sort|shuffle|glob|int|float|str|bool)\(")
AMBIGUOUS = re.compile(r"Ambiguous value for argument '(.*)'\n")  # Hydra's message


def hydra_order(words: list[str]) -> list[str]:
    """Return the same arguments in an order that Hydra accepts: Hydra's own options first, then the overrides.

    A path that begins with `~` is quoted, since in Hydra's grammar `~` removes an option.
    """
    known = get_args_parser()._option_string_actions
    options, overrides, left = [], [], list(words)
    while left:
        word = left.pop(0)
        name, sign, value = word.partition("=")
        if name not in known:
            overrides.append(ITEM.sub(r'\1"\2"', word))
        elif sign:
            options.append(f"{name}={expand_home(value)}")
        elif left and (known[name].nargs is None or (known[name].nargs == "?" and left[0] in known[name].choices)):
            options += [word, expand_home(left.pop(0))]
        else:
            (overrides if known[name].nargs is None else options).append(word)  # a missing value: Hydra reports it
    return options + overrides


def unreadable_message(word: str, reason: str) -> str:
    """Return the message about an argument that Hydra's grammar cannot read, with the correct form where it is known.

    Args:
        word: the argument.
        reason: Hydra's message.
    """
    start = f"the argument {word!r} cannot be read"
    clean = "".join(sign for sign in word.translate(TYPOGRAPHIC) if sign.isprintable() or _is_byte(sign)).strip()
    if clean != word and _read(clean) is not None:
        why = " (of a file with Windows line ends?)" if "\r" in word else ""
        return f"{start}: it holds signs that do not belong there{why}; type {shlex.quote(clean)}"
    key, sign, value = clean.partition("=")
    if not sign:
        return f"{start}: an option is set by KEY=VALUE, and removed by ~KEY"
    if _read(f"{key}=0") is None:
        return f"{start}: {key!r} is no name of an option"
    pairs = ("[]", "{}", "()") if FUNCTION.match(value) else ("[]", "{}")
    if any(value.count(left) != value.count(right) for left, right in pairs):
        return f"{start}: its brackets do not match"
    typed = f"{key}={_listed(value) if value[:1] == '[' else quoted(value)}"
    if FUNCTION.match(value) or value[:1] == "{" or value.count("[") > 1 or _read(typed) is None:
        return f"{start}: {reason.partition(chr(10))[0]}"
    return f"{start}: its value needs quotes of its own; type {shlex.quote(typed)}"


def ambiguous_message(word: str) -> str:
    """Return the message about an argument that has several values without `-m`."""
    key, _, value = word.partition("=")
    one, several = shlex.quote(f"{key}={quoted(value)}"), shlex.quote(f"{key}=[{value}]")
    return f"{word} is several values: as one text, type {one}; as a list, {several}; a cell for each of them: dfkd -m"


def quoted(value: str) -> str:
    """Return a value as a quoted string of Hydra's grammar."""
    inner = value[1:].rstrip(value[0]) if value[:1] in ('"', "'") else value
    inner = re.sub(r'\\+(?="|$)', r"\g<0>\g<0>", inner)  # a backslash is an escape only before a quotation mark
    return '"' + inner.replace('"', '\\"') + '"'


def _is_byte(sign: str) -> bool:
    """Return whether a character stands for a byte that Python could not decode in this locale (surrogateescape)."""
    return "\udc80" <= sign <= "\udcff"


def _listed(value: str) -> str:
    """Return a list like '[a,b]' in which each item that Hydra cannot read is quoted."""
    items = value.strip("[]").split(",")
    return f"[{','.join(quoted(item) if _read(f'x={item}') is None else item for item in items)}]"


def _read(word: str) -> Override | None:
    """Parse an override with Hydra's parser; None if it cannot be parsed."""
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None
