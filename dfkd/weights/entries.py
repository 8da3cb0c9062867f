"""Finds the state dicts in the content of a file, at any depth, and removes what wrappers add."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from torch import Tensor

# Components of tensor names that wrapper modules add.
WRAPPED = {
    "module": "DataParallel or AveragedModel",
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
}
# Counters that AveragedModel and the profiler thop store beside the weights.
COUNTERS = {"n_averaged": "AveragedModel", "total_ops": "thop's counters", "total_params": "thop's counters"}
UNUSED = "sub_block1."  # TRADES' WRNs hold a second block1, which no output depends on
MEANS, STDS = ("mean", "_mean", "mu", "image_mean"), ("std", "_std", "sigma", "image_std")
DEEPEST = 6  # largest depth of nested dictionaries that is searched


@dataclass(frozen=True)
class Entry:
    """Tensors of a file that may be the weights of one network.

    Attributes:
        path: position in the file, as in `teacher.entry=`: keys and components of names, joined by dots; '' is the
            whole file.
        tensors: tensors by name, without the components that wrappers add.
        wrappings: names of the wrappers that were removed.
        mean, std: values of a normalisation layer before the network; empty if there is none.
        beside: names of tensors of the same state dict that do not belong to the entry.
    """

    path: str
    tensors: dict[str, Tensor]
    wrappings: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    beside: tuple[str, ...] = field(default=(), compare=False)

    @property
    def title(self) -> str:
        return f"'{self.path}'" if self.path else "the whole file"


def entries(content: object) -> list[Entry]:
    """List all state dicts in the content of a file, and for each the subsets below every common prefix of names, also
    without layers that may be unused."""
    parts = (part for path, tensors in state_dicts(content) for part in _parts(unwrapped(path, tensors)))
    return [entry for part in parts for entry in _used(part)]


def state_dicts(content: object, path: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield all dictionaries of tensors by name, with their paths."""
    if depth > DEEPEST:
        return
    if isinstance(content, list | tuple):
        content = dict(enumerate(content))
    if not isinstance(content, dict):
        return
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if tensors:
        yield path, tensors
    for key, value in content.items():
        yield from state_dicts(value, f"{path}.{key}" if path else str(key), depth + 1)


def unwrapped(path: str, tensors: dict[str, Tensor]) -> Entry:
    """Make an entry of a state dict: without counters, wrapper components in names, and a normalisation layer."""
    wrappings, plain, means, stds = {}, {}, {}, {}
    for key, value in tensors.items():
        parts = key.split(".")
        wrappings |= {WRAPPED[part]: None for part in parts if part in WRAPPED}
        if parts[-1] in COUNTERS:
            wrappings[COUNTERS[parts[-1]]] = None
        elif value.numel() <= 4 and parts[-1] in (*MEANS, *STDS):
            statistics = means if parts[-1] in MEANS else stds
            statistics[tuple(round(number, 6) for number in value.double().flatten().tolist())] = None
        else:
            plain[key] = value
    names = [".".join(part for part in key.split(".") if part not in WRAPPED) for key in plain]
    if len(set(names)) == len(names):  # otherwise the components distinguish two networks, and have to stay
        plain = dict(zip(names, plain.values(), strict=True))
    one = len(means) == len(stds) == 1
    if (means or stds) and not one:  # unknown which of them precedes the network
        wrappings["several normalisation layers"] = None
    return Entry(path, plain, tuple(wrappings), next(iter(means)) if one else (), next(iter(stds)) if one else ())


def _parts(whole: Entry) -> Iterator[Entry]:
    """Yield an entry, and the entries below each prefix of its tensor names."""
    yield whole
    beginnings: dict[str, dict[str, Tensor]] = {}
    for key, value in whole.tensors.items():
        dot = key.find(".")
        while dot >= 0:
            beginnings.setdefault(key[:dot], {})[key[dot + 1 :]] = value
            dot = key.find(".", dot + 1)
    for start, tensors in beginnings.items():
        beside = tuple(key for key in whole.tensors if not key.startswith(f"{start}."))
        path = f"{whole.path}.{start}" if whole.path else start
        yield Entry(path, tensors, whole.wrappings, whole.mean, whole.std, beside)


def _used(whole: Entry) -> Iterator[Entry]:
    """Yield an entry, and if it has layers that may be unused, the entry without them."""
    yield whole
    unused = tuple(key for key in whole.tensors if key.startswith(UNUSED))
    if unused:
        used = {key: value for key, value in whole.tensors.items() if key not in unused}
        yield replace(whole, tensors=used, beside=whole.beside + unused)
