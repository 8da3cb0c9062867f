"""Finds the networks of conf/network that a weight file fits, by layer names and shapes."""

import contextlib
import functools
import importlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from omegaconf import OmegaConf
from torch import nn
from torch.overrides import TorchFunctionMode

from dfkd.config.options import option_names
from dfkd.config.paths import CONF
from dfkd.weights.advice import Advice, advice
from dfkd.weights.choose import fitting, nearest
from dfkd.weights.entries import Entry
from dfkd.weights.match import Match

ROUNDS = 4  # attempts to adapt a network; each can reveal further changes (channels and stem, then classes)
SIZE = 32  # side of the images in pixels, if the shapes do not determine it
FILLS = (
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "uniform_",
    "erfinv_",
    "mul_",
    "add_",
    "clamp_",
    "fill_",
    "zero_",
)
TIMM_MODELS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "vit_base_patch16_224",
)


@dataclass(frozen=True)
class Fit:
    """A network of conf/network that an entry of a file fits.

    Attributes:
        network: name of the option of conf/network.
        made: the network with all its options, as text.
        part: the entry of the file.
        match: the match of the entry with the network.
        settings: options that have to be set.
        channels, classes: number of input channels and of classes of the network.
    """

    network: str
    made: str
    part: Entry
    match: Match
    settings: Advice
    channels: int
    classes: int


def all_fits(entries: list[Entry]) -> list[Fit]:
    """Return the networks of conf/network that the entries of a file fit, for each entry those with the fewest
    settings. Networks of timm are tried only if no other network fits."""
    nodes = {name: option(name) for name in option_names("network", [CONF])}
    timm = {name for name, node in nodes.items() if node["_target_"].endswith("timm_model")}
    fits = [fit for name, node in nodes.items() if name not in timm for fit in _fits(name, node, entries)]
    if not fits:
        named = [(name, nodes[name], {}) for name in sorted(timm - {"timm"})]
        models = [("timm", nodes["timm"], {"model": model}) for model in TIMM_MODELS]
        fits = [fit for name, node, options in named + models for fit in _fits(name, node, entries, options)]
    best: dict[tuple[str, str], Fit] = {}  # of options that result in the same network, the one with fewest settings
    for fit in sorted(fits, key=lambda fit: len(fit.settings.overrides())):
        best.setdefault((fit.part.path, fit.made), fit)
    fewest: dict[str, int] = {}
    for fit in best.values():
        fewest.setdefault(fit.part.path, len(fit.settings.overrides()))
    return [fit for fit in best.values() if len(fit.settings.overrides()) == fewest[fit.part.path]]


def option(name: str) -> dict:
    """Load an option of conf/network, with its defaults, as plain values."""
    node = OmegaConf.to_container(OmegaConf.load(CONF / "network" / f"{name}.yaml"))
    parents = [parent for parent in node.pop("defaults", []) if parent != "_self_"]
    return {key: value for parent in parents for key, value in option(parent).items()} | node


def _fits(name: str, node: dict, entries: list[Entry], options: dict | None = None) -> Iterator[Fit]:
    """Yield the entries that fit a network, after adapting its channels, classes and options to the entries' shapes."""
    settings, channels, classes, size = Advice(options or {}), 3, 10, SIZE
    for _ in range(ROUNDS):
        wanted = {key: value for key, value in (node | settings.network).items() if key != "name"}
        net = _build_network(wanted, (channels, size, size), classes)
        if net is None:
            return
        fitted = fitting(net, entries, size)
        if fitted:
            made = repr(sorted(wanted.items()))
            yield from (Fit(name, made, part, match, settings, channels, classes) for part, match in fitted)
            return
        changes = advice(net, nearest(net, entries, size)[1], size)
        if not changes:
            return
        settings = Advice(
            settings.network | changes.network, changes.channels or settings.channels, changes.size or settings.size
        )
        channels, classes, size = changes.channels or channels, changes.classes or classes, changes.size or size


def _build_network(node: dict, shape: tuple[int, int, int], classes: int) -> nn.Module | None:
    """Build a network, on the meta device where that works; None if it cannot be built with these options."""
    options = {key: value for key, value in node.items() if key != "_target_"}
    module, _, target = node["_target_"].rpartition(".")
    make = functools.partial(getattr(importlib.import_module(module), target), shape=shape, classes=classes, **options)
    for memory in (on_meta_device, contextlib.nullcontext):
        try:
            with memory():
                return make()
        except (ValueError, TypeError, RuntimeError, AssertionError) as error:
            # an older timm reads values while it makes a transformer, and the meta device has none
            if "meta tensors" not in str(error.__cause__ or error):
                return None
    return None


@contextlib.contextmanager
def on_meta_device() -> Iterator[None]:
    """Context manager: networks are built on the meta device, with shapes but no values, which takes milliseconds."""
    with torch.device("meta"), _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    """Skips the initialisation of tensors on the meta device, for which torch would load its compiler for seconds."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        if getattr(function, "__name__", "") in FILLS:
            return arguments[0] if arguments else options["tensor"]
        return function(*arguments, **(options or {}))
