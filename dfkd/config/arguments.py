"""The words of the command line: as people type them, and as Hydra reads them."""

import re
import shlex

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from dfkd.config.paths import home

ITEM = re.compile(r"""(=|,|\[)(~(?:/[^,\[\]{}()"']*)?)(?=,|\]|$)""")  # a path in the home folder, unquoted
TYPOGRAPHIC = str.maketrans({"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'"})
FUNCTION = re.compile(r"(choice|range|interval|tag|sort|shuffle|glob|int|float|str|bool)\(")
AMBIGUOUS = re.compile(r"Ambiguous value for argument '(.*)'\n")  # in Hydra's words


def arranged(words: list[str]) -> list[str]:
    """The same words in an order that Hydra takes: its options, wherever they stand, before the overrides. A path that
    begins with `~` is quoted, since Hydra's grammar has another use for that sign."""
    known = get_args_parser()._option_string_actions
    options, overrides, left = [], [], list(words)
    while left:
        word = left.pop(0)
        name, sign, value = word.partition("=")
        if name not in known:
            overrides.append(ITEM.sub(r'\1"\2"', word))
        elif sign:
            options.append(f"{name}={home(value)}")
        elif left and (known[name].nargs is None or (known[name].nargs == "?" and left[0] in known[name].choices)):
            options += [word, home(left.pop(0))]
        else:
            (overrides if known[name].nargs is None else options).append(word)  # it lacks its value: Hydra says so
    return options + overrides


def unreadable(word: str, reason: str) -> str:
    """What is said of an argument that Hydra's grammar cannot read, with what to type instead where that is known.

    Args:
        reason: what Hydra says of it.
    """
    said = f"the argument {word!r} cannot be read"
    clean = "".join(sign for sign in word.translate(TYPOGRAPHIC) if sign.isprintable() or _is_byte(sign)).strip()
    if clean != word and _read(clean) is not None:
        why = " (of a file with Windows line ends?)" if "\r" in word else ""
        return f"{said}: it holds signs that do not belong there{why}; type {shlex.quote(clean)}"
    key, sign, value = clean.partition("=")
    if not sign:
        return f"{said}: an option is set by KEY=VALUE, and removed by ~KEY"
    if _read(f"{key}=0") is None:
        return f"{said}: {key!r} is no name of an option"
    pairs = ("[]", "{}", "()") if FUNCTION.match(value) else ("[]", "{}")
    if any(value.count(left) != value.count(right) for left, right in pairs):
        return f"{said}: its brackets do not match"
    typed = f"{key}={_listed(value) if value[:1] == '[' else quoted(value)}"
    if FUNCTION.match(value) or value[:1] == "{" or value.count("[") > 1 or _read(typed) is None:
        return f"{said}: {reason.partition(chr(10))[0]}"
    return f"{said}: its value needs quotes of its own; type {shlex.quote(typed)}"


def ambiguous(word: str) -> str:
    """What is said of an argument with several values where one is wanted."""
    key, _, value = word.partition("=")
    one, several = shlex.quote(f"{key}={quoted(value)}"), shlex.quote(f"{key}=[{value}]")
    return f"{word} is several values: as one text, type {one}; as a list, {several}; a cell for each of them: dfkd -m"


def quoted(value: str) -> str:
    """A value as a text of Hydra's grammar."""
    inner = value[1:].rstrip(value[0]) if value[:1] in ('"', "'") else value
    inner = re.sub(r'\\+(?="|$)', r"\g<0>\g<0>", inner)  # backslashes count before a quotation mark only
    return '"' + inner.replace('"', '\\"') + '"'


def _is_byte(sign: str) -> bool:
    """Whether Python holds a byte in it that the locale has no sign for."""
    return "\udc80" <= sign <= "\udcff"


def _listed(value: str) -> str:
    """A list whose items are quoted where Hydra cannot read them otherwise."""
    items = value.strip("[]").split(",")
    return f"[{','.join(quoted(item) if _read(f'x={item}') is None else item for item in items)}]"


def _read(word: str) -> Override | None:
    """What Hydra reads in an override; None where it cannot be read."""
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None
