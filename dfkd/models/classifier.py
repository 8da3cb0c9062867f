"""A network with its image shape, classes, mean and std (`Classifier`), and its frozen form (`Teacher`)."""

import contextlib
import importlib
import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dfkd.errors import ConfigError
from dfkd.machine.compiling import compiled, is_compiling
from dfkd.models.folded import fold_batch_norms, has_layer_hooks
from dfkd.models.hooks import frozen_norms
from dfkd.models.soundness import refuse_broken

log = logging.getLogger("dfkd")


class Classifier(nn.Module):
    """A network that takes images in [0, 1] and normalises them itself.

    Args:
        net: maps normalised images (B, C, H, W) to logits (B, classes).
        shape: (C, H, W) of the images.
        classes: number of classes.
        mean, std: per-channel statistics, each of length C (or 1, for all channels).

    Raises:
        ValueError: mean or std do not fit the channels, a std is not positive, or the network does not map images
            of `shape` to `classes` finite logits.
    """

    def __init__(self, net: nn.Module, shape: tuple[int, int, int], classes: int, mean: list[float], std: list[float]):
        super().__init__()
        if len(mean) not in (1, shape[0]) or len(std) not in (1, shape[0]):
            raise ValueError(f"mean={list(mean)} and std={list(std)} do not fit images of {shape[0]} channels")
        if min(std) <= 0:
            raise ValueError(f"std must be positive, got {list(std)}")
        self.net, self.shape, self.classes = net, tuple(shape), classes
        device = next((tensor.device for tensor in net.state_dict().values()), None)  # None if it has no tensors
        self.register_buffer("mean", torch.tensor(mean, device=device).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, device=device).view(1, -1, 1, 1), persistent=False)
        self._try_images()

    def _try_images(self) -> None:
        """Raise ValueError unless the network gives finite logits, not probabilities, for two test images.

        The images are gradients from dark to bright in [-1, 2]. On inputs outside [0, 1], outputs that are never
        negative and sum to 1 are those of a softmax.
        """
        mode = self.training
        size = "x".join(map(str, self.shape))
        try:
            with torch.no_grad():
                images = torch.linspace(-1, 2, 2 * math.prod(self.shape), device=self.mean.device)
                logits = Classifier.forward(self.eval(), images.view(2, *self.shape))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ValueError(f"the network cannot take {size} images: {str(error) or type(error).__name__}") from error
        finally:
            self.train(mode)
        if not isinstance(logits, Tensor):
            raise ValueError(f"the network returns a {type(logits).__name__}; it must return the logits alone")
        if logits.dim() != 2 or len(logits) != 2:
            raise ValueError(f"the network gives outputs of shape {tuple(logits.shape)} for 2 images; use (B, classes)")
        if logits.shape[1] != self.classes:
            raise ValueError(f"the network gives {logits.shape[1]} logits, but there are {self.classes} classes")
        if not logits.isfinite().all():
            raise ValueError(f"the network gives NaN or infinite logits for {size} images")
        sums_to_one = torch.allclose(logits.sum(1), logits.new_ones(2), atol=1e-3)
        # Equal outputs for both images are accepted: a constant network can give such logits without a softmax.
        if self.classes > 1 and logits.min() >= 0 and sums_to_one and not torch.equal(*logits):
            raise ValueError(
                "the network's outputs are probabilities, as they sum to 1: it ends in a softmax; leave that out, so "
                "that it gives logits"
            )

    def normalize(self, images: Tensor) -> Tensor:
        """(images - mean) / std, per channel."""
        return (images - self.mean) / self.std

    def denormalize(self, inputs: Tensor) -> Tensor:
        """inputs * std + mean, per channel: the inverse of `normalize`."""
        return inputs * self.std + self.mean

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W) in [0, 1]."""
        return self.net(self.normalize(images))

    @torch.no_grad()
    def predict(self, images: Tensor, chunk: int = 1000) -> Tensor:
        """Compute logits (B, classes) in evaluation mode, `chunk` images at a time; restores the mode afterwards."""
        mode = self.training
        if mode:
            self.eval()
        logits = torch.cat([self(part.to(self.mean.device)) for part in images.split(chunk)])
        if mode:
            self.train()
        return logits


class Teacher(Classifier):
    """A frozen classifier: always in evaluation mode, without parameter gradients. It counts all evaluated images.

    Attributes:
        evals: number of images evaluated so far, by purpose (such as 'synthesis', 'split', 'distill', 'evaluate',
            'other').
        version: how many times the weights have got others or another place (`changed`); a recorded step holds for one.
    """

    version = 0

    def __init__(self, net: nn.Module, shape: tuple[int, int, int], classes: int, mean: list[float], std: list[float]):
        super().__init__(net, shape, classes, mean, std)
        self.evals: Counter[str] = Counter()
        self._purpose = "other"
        self._fast: list[nn.Module | None] = []  # in a list, so that it is not registered as a submodule
        self._compiled: list[Callable[[Tensor], Tensor] | None] = []
        self.requires_grad_(False)
        self.eval()
        net.register_forward_pre_hook(self._count)

    @classmethod
    def of(cls, classifier: Classifier) -> "Teacher":
        """Return a frozen teacher of a classifier's network, which it shares."""
        mean, std = (statistic.flatten().tolist() for statistic in (classifier.mean, classifier.std))
        return cls(classifier.net, classifier.shape, classifier.classes, mean, std)

    def _count(self, _net: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        self.count(len(arguments[0]))

    def count(self, images: int) -> None:
        """Count images as evaluated. Forward passes count themselves."""
        self.evals[self._purpose] += images

    def forward_normalized(self, inputs: Tensor) -> Tensor:
        """Compute the logits (B, classes) of normalised inputs (B, C, H, W).

        Uses the copy of `net` with BatchNorm layers folded into convolutions (`dfkd.models.folded`), if there is one
        and no hooks watch layers of `net`; otherwise `net` itself.
        """
        if not has_layer_hooks(self.net):
            if is_compiling() and (logits := self._pass_compiled(inputs)) is not None:
                return logits
            if not self._fast:
                fast = fold_batch_norms(self.net, self.shape, {id(self): self})
                if fast is not None:
                    fast.register_forward_pre_hook(self._count)
                self._fast = [fast]
            if self._fast[0] is not None:
                return self._fast[0](inputs)
        with frozen_norms(self.net):
            return self.net(inputs)

    def _pass_compiled(self, inputs: Tensor) -> Tensor | None:
        """Return the logits by a copy of the network that `torch.compile` has made faster; None if it cannot."""
        if not self._compiled:
            fast = fold_batch_norms(self.net, self.shape, {id(self): self}, to_compile=True)
            self._compiled = [fast and compiled(fast.forward)]
        if self._compiled[0] is None:
            return None
        try:
            logits = self._compiled[0](inputs)
        except Exception as error:  # torch's compiler has errors of its own, and needs a C compiler
            reason = str(error).strip().splitlines() or [type(error).__name__]
            log.info("  the teacher is not compiled: %s", reason[0])
            self._compiled = [None]
            return None
        self.count(len(inputs))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W) in [0, 1]."""
        return self.forward_normalized(self.normalize(images))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Teacher":
        """Apply a function to all weights (such as a move to a device), and drop the copies made from them."""
        self.changed()
        return super()._apply(fn, recurse)

    def changed(self) -> None:
        """Drop what was made from the weights: the copies of the network, and recorded steps in which they are."""
        self._fast, self._compiled = [], []
        self.version += 1

    def checkpoint_state(self) -> dict[str, Counter]:
        """Return what a checkpoint saves: the counts, because nothing else ever changes."""
        return {"evals": self.evals}

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode, whatever `mode` a caller or a parent module asks for."""
        return super().train(False)

    @contextlib.contextmanager
    def counted_as(self, purpose: str) -> Iterator[None]:
        """Count the images evaluated inside the block under `purpose`."""
        before, self._purpose = self._purpose, purpose
        try:
            yield
        finally:
            self._purpose = before


def save_classifier(model: Classifier, network: dict, folder: Path, name: str) -> None:
    """Write `<name>.safetensors` (weights) and `<name>.json` (everything else that loading needs).

    Args:
        network: the network's configuration, `{_target_: ..., option: value}`.
    """
    weights = {key: value.contiguous().cpu() for key, value in model.net.state_dict().items()}
    save_file(weights, folder / f"{name}.safetensors")
    about = {
        "network": network,
        "shape": list(model.shape),
        "classes": model.classes,
        "mean": model.mean.flatten().tolist(),
        "std": model.std.flatten().tolist(),
        "input": "float images (B, C, H, W) in [0, 1]; mean and std are applied inside",
        "load": f"from dfkd.models import load_classifier; model = load_classifier('{name}.json')",
    }
    (folder / f"{name}.json").write_text(json.dumps(about, indent=2) + "\n")


def load_classifier(path: str | Path, net: nn.Module | None = None) -> Classifier:
    """Load a classifier that `save_classifier` wrote.

    Args:
        path: the JSON file; the weights are in the same folder under the same name.
        net: the network; needed if it is not in `dfkd.models`. Files are not trusted, and a JSON file may name only
            networks of `dfkd.models`.

    Returns:
        the classifier in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: a file is missing.
        ConfigError: the JSON names code outside dfkd.models, or the weights do not fit.
    """
    path = Path(path)
    about = json.loads(path.read_text())
    shape, classes = tuple(about["shape"]), about["classes"]
    if net is None:
        options = dict(about["network"])
        module, _, name = options.pop("_target_", "").rpartition(".")
        options.pop("name", None)
        networks = importlib.import_module("dfkd.models")
        if module != "dfkd.models" or not hasattr(networks, name):
            raise ConfigError(f"{path} names the network '{module}.{name}', which is not one of dfkd.models; pass net=")
        net = getattr(networks, name)(shape=shape, classes=classes, **options)
    load_weights(net, load_file(path.with_suffix(".safetensors")), str(path))
    return Classifier(net, shape, classes, about["mean"], about["std"]).eval()


def load_weights(net: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Load a state dict; raise ConfigError that names the first keys and shapes that do not fit, or a broken tensor."""
    own = net.state_dict()
    missing = sorted(own.keys() - weights.keys())
    extra = sorted(weights.keys() - own.keys())
    wrong = [
        f"{key} {tuple(weights[key].shape)} instead of {tuple(own[key].shape)}"
        for key in sorted(own.keys() & weights.keys())
        if own[key].shape != weights[key].shape
    ]
    if missing or extra or wrong:
        parts = [("missing", missing), ("not in this network", extra), ("wrong shape", wrong)]
        text = "; ".join(f"{what}: {', '.join(keys[:3])}{' ...' * (len(keys) > 3)}" for what, keys in parts if keys)
        raise ConfigError(
            f"the weights in {source} do not fit the network: {text}. Choose the network they were trained with."
        )
    refuse_broken(weights, own, source)
    net.load_state_dict(weights)
