"""The state dicts in what a file holds, at whatever depth and behind whatever wrapping."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor

# Parts of a name that a wrapper adds: DataParallel and AveragedModel, torch.compile, FSDP, activation checkpointing.
WRAPPED = {
    "module": "DataParallel or AveragedModel",
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
}
# What a wrapper counts beside the weights: AveragedModel, the profiler thop.
COUNTERS = {"n_averaged": "AveragedModel", "total_ops": "thop's counters", "total_params": "thop's counters"}
MEANS, STDS = ("mean", "_mean", "mu", "image_mean"), ("std", "_std", "sigma", "image_std")
DEEPEST = 6  # dictionaries in each other


@dataclass(frozen=True)
class Entry:
    """Tensors of a file that may be a network.

    Attributes:
        path: where in the file, as `teacher.entry=` takes it: keys and parts of names, joined by dots; '' is all.
        tensors: by name, without what wrappers add.
        wrappings: the wrappers that were taken off.
        mean, std: of a normalisation layer in front; empty if there is none.
        beside: names of the tensors of the same state dict that are not part of it.
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


def entries(held: object) -> list[Entry]:
    """Every state dict in what a file holds, and every part of one below a common beginning of names."""
    return [part for path, tensors in state_dicts(held) for part in _parts(unwrapped(path, tensors))]


def state_dicts(held: object, path: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The dictionaries of tensors by name, with their places."""
    if depth > DEEPEST:
        return
    if isinstance(held, list | tuple):
        held = dict(enumerate(held))
    if not isinstance(held, dict):
        return
    tensors = {key: value for key, value in held.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if tensors:
        yield path, tensors
    for key, value in held.items():
        yield from state_dicts(value, f"{path}.{key}" if path else str(key), depth + 1)


def unwrapped(path: str, tensors: dict[str, Tensor]) -> Entry:
    """A state dict without counters, the marks of wrappers in its names, and a normalisation layer."""
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
    if len(set(names)) == len(names):  # else the marks tell two networks apart
        plain = dict(zip(names, plain.values(), strict=True))
    one = len(means) == len(stds) == 1
    if (means or stds) and not one:  # it is not known which stands in front
        wrappings["several normalisation layers"] = None
    return Entry(path, plain, tuple(wrappings), next(iter(means)) if one else (), next(iter(stds)) if one else ())


def _parts(whole: Entry) -> Iterator[Entry]:
    """A state dict, and what of it lies below each beginning of its names."""
    yield whole
    beginnings: dict[str, dict[str, Tensor]] = {}
    for key, value in whole.tensors.items():
        place = key.find(".")
        while place >= 0:
            beginnings.setdefault(key[:place], {})[key[place + 1 :]] = value
            place = key.find(".", place + 1)
    for start, tensors in beginnings.items():
        beside = tuple(key for key in whole.tensors if not key.startswith(f"{start}."))
        path = f"{whole.path}.{start}" if whole.path else start
        yield Entry(path, tensors, whole.wrappings, whole.mean, whole.std, beside)
