"""Chooses the tensors of a file that are the weights of a network, renamed to the network's layers."""

import shlex
from dataclasses import dataclass

from torch import Tensor, nn

from dfkd.errors import ConfigError
from dfkd.weights.advice import Advice, advice
from dfkd.weights.entries import Entry, entries
from dfkd.weights.match import COUNTED, OWN, TIMM, Match, kernels, match
from dfkd.weights.naming import layers_of

NAMED = 8  # largest number of entries or tensors listed in a message
NOTES = {
    "stem": "the file does not tell whether a max-pooling follows the first convolution; if the teacher is at chance, "
    "set teacher.network.stem=conv3_pool",
    "timm": "the file does not tell whether a max-pooling follows the first convolution, it is taken not to",
    "pools": "the file does not tell where the max-poolings stand, they are taken to be where CAKE has them",
    "activations": "the file does not tell the activations, they are taken to be ReLUs",
}


@dataclass(frozen=True)
class Chosen:
    """An entry of a file that fits a network.

    Attributes:
        entry: the entry.
        naming: name of the naming under which it fits.
        weights: tensors by the network's own names; BatchNorm's num_batches_tracked may be missing.
        words: a line that describes the entry and its naming.
    """

    entry: Entry
    naming: str
    weights: dict[str, Tensor]
    words: str


def choose(net: nn.Module, content: object, source: str, entry: str | None = None, size: int | None = None) -> Chosen:
    """Choose the only entry of a file that fits a network.

    Args:
        content: the content of the file, from `dfkd.weights.read`.
        source: name of the file, for messages.
        entry: restricts the choice to entries with this path, or with paths below it.
        size: side of the images in pixels, if known.

    Raises:
        ConfigError: no entry or several entries fit.
    """
    known = entries(content)
    if not known:
        raise ConfigError(f"{source} holds no tensors by name; save model.state_dict()")
    candidates = [part for part in known if entry is None or f"{part.path}.".startswith(f"{entry}.")]
    if not candidates:
        raise ConfigError(f"{source} has no entry '{entry}'; entries: {_listed(titles(known))}. Set teacher.entry")
    fits = fitting(net, candidates, size)
    if len(fits) > 1:
        raise ConfigError(
            f"{source} holds {len(fits)} networks that fit: {_listed([part.title for part, _ in fits])}; choose one, "
            f"as in teacher.entry={fits[0][0].path}"
        )
    if not fits:
        raise ConfigError(_why_not(net, candidates, source, size))
    part, matched = fits[0]
    return Chosen(part, matched.naming, matched.weights, _words(net, part, matched, source))


def fitting(net: nn.Module, parts: list[Entry], size: int | None = None) -> list[tuple[Entry, Match]]:
    """Return the entries that fit a network, with their matches; of entries with the same tensors only the first."""
    fits: dict[frozenset[int], tuple[Entry, Match]] = {}
    needed = _count(net.state_dict())
    for part in parts:
        tensors = frozenset(map(id, part.tensors.values()))
        if tensors not in fits and _count(part.tensors) == needed:  # another number of tensors cannot fit
            matched = match(net, part.tensors, size)
            if matched.fits:
                fits[tensors] = part, matched
    return list(fits.values())


def nearest(net: nn.Module, parts: list[Entry], size: int | None = None) -> tuple[Entry, Match]:
    """Return the entry that is closest to fitting a network; entries in a known naming come first."""
    count = len(net.state_dict())
    largest = sorted(parts, key=lambda part: -len(part.tensors))[:4]
    close = sorted(parts, key=lambda part: abs(len(part.tensors) - count))[:4]
    matches = [(part, match(net, part.tensors, size)) for part in [*largest, *close]]
    return min(matches, key=lambda pair: (not pair[1].is_known, pair[1].distance))


def titles(parts: list[Entry]) -> list[str]:
    """Return the quoted paths of the outermost entries, or ['the whole file']."""
    shown: list[str] = []
    for part in parts:
        if part.path and len(part.tensors) > 1 and not any(part.path.startswith(f"{path}.") for path in shown):
            shown.append(part.path)
    return [f"'{path}'" for path in shown] or ["the whole file"]


def _count(tensors: dict[str, Tensor]) -> int:
    """Count tensors, without BatchNorm's counters."""
    return sum(not key.endswith(COUNTED) for key in tensors)


def _words(net: nn.Module, part: Entry, matched: Match, source: str) -> str:
    named = "named as here" if matched.naming == OWN else f"named as in {matched.naming}"
    words = [f"teacher from {source}: {part.title}, {named}"]
    if part.wrappings:
        words.append(f"without {', '.join(part.wrappings)}")
    if part.mean:
        words.append("with the normalisation in it")
    if part.beside:
        words.append(f"left out beside it: {_listed(list(part.beside))}")
    note = _open_question(net, matched)
    return "; ".join([*words, *([NOTES[note]] if note else [])])


def _open_question(net: nn.Module, matched: Match) -> str | None:
    """Return the key of NOTES for what the names and shapes of a file leave unknown, or None."""
    if matched.naming == TIMM:
        return "timm" if isinstance(getattr(net.net, "maxpool", None), nn.Identity) else None
    # A stem with a 7x7 convolution always has a max-pooling.
    if matched.note == "stem" and kernels(layers_of(matched.weights))[0] == 7:
        return None
    return matched.note


def _why_not(net: nn.Module, parts: list[Entry], source: str, size: int | None) -> str:
    """Explain why no entry of a file fits a network: the nearest entry, its differences, and options to set."""
    part, closest = nearest(net, parts, size)
    where = f"{source} ({part.title})" if part.path else source
    if closest.other:
        return f"the weights in {where}, named as in {closest.naming}, are not of this network: {closest.other}"
    if closest.missing and not (closest.extra or closest.wrong) and all(map(_is_statistic, closest.missing)):
        return (
            f"the weights in {where} lack the running statistics of BatchNorm ({closest.missing[0]}, ...): they seem "
            f"to come from model.parameters(); save model.state_dict()"
        )
    own = net.state_dict()
    wrong = [f"{key} {tuple(closest.weights[key].shape)} instead of {tuple(own[key].shape)}" for key in closest.wrong]
    rows = [("missing", closest.missing), ("not in this network", closest.extra), ("wrong shape", sorted(wrong))]
    text = "; ".join(f"{what}: {', '.join(keys[:3])}{' ...' * (len(keys) > 3)}" for what, keys in rows if keys)
    named = "" if closest.naming == OWN else f", named as in {closest.naming},"
    what = _what_to_set(advice(net, closest, size), source)
    return f"the weights in {where}{named} do not fit the network: {text}. {what}"


def _is_statistic(key: str) -> bool:
    return key.rpartition(".")[2] in ("running_mean", "running_var")


def _what_to_set(changes: Advice, source: str) -> str:
    parts = []
    if changes.overrides():
        parts.append(f"By its shapes the file needs {' '.join(map(shlex.quote, changes.overrides()))}.")
    if changes.classes:
        parts.append(
            f"The file has {changes.classes} classes: choose an ID domain with as many (domain@ntl_scenario.id=...), "
            f"or a checkpoint for this one."
        )
    choose = "Or choose" if parts else "Choose"
    return " ".join([*parts, f"{choose} the network they were trained with: `dfkd-inspect {source}` names what fits"])


def _listed(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
