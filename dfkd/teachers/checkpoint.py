"""Somebody else's weights as the teacher. The file is not trusted: no code of it is ever run."""

import logging

from torch import nn

from dfkd.domains import check_normalisation
from dfkd.errors import ConfigError
from dfkd.machine.runtime import Runtime
from dfkd.models import Classifier, refuse_broken
from dfkd.scenarios import Scenario
from dfkd.teachers.base import TeacherSource
from dfkd.weights import choose, read

log = logging.getLogger("dfkd")
SAME = 1e-3  # how far apart two statements of a mean or a standard deviation of images in [0, 1] may be


class Checkpoint(TeacherSource):
    """A finished teacher from a file.

    Args:
        network: the network the weights belong to, in its own layer names or in those of `dfkd/weights/namings.yaml`.
        path: a safetensors or npz file, or what torch.save wrote (loaded with weights_only=True).
        mean, std: the normalisation it was trained with, per channel; images come in [0, 1]. None: that of a
            normalisation layer in the file.
        entry: which part of the file, where several fit the network: the keys that lead to it, joined by dots.
        shape: (C, H, W) of the images, if that is known: on it depends where some networks have their poolings.

    Raises:
        ConfigError: the file is missing, unreadable, unsafe, does not fit the network, or fits it in several ways; it
            holds broken weights; its normalisation is not known, or is another one than mean and std.
    """

    def __init__(
        self,
        network: nn.Module,
        path: str,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        entry: str | None = None,
        shape: tuple[int, int, int] | None = None,
    ):
        if not path:
            raise ConfigError("teacher=checkpoint needs teacher.path=FILE (safetensors, or a PyTorch state dict)")
        chosen = choose(network, read(path), path, entry, shape[-1] if shape else None)
        self.network = network
        self.mean = statistic("mean", mean, chosen.entry.mean, path)
        self.std = statistic("std", std, chosen.entry.std, path)
        refuse_broken(chosen.weights, network.state_dict(), path)
        network.load_state_dict(chosen.weights, strict=False)  # a counter of batches may be missing
        log.info("  %s", chosen.words)

    def check(self, scenario: Scenario) -> None:
        """Raise ValueError if the network or its normalisation does not fit the scenario's images and classes."""
        check_normalisation(self.mean, self.std, scenario.id.modality.box)
        Classifier(self.network, scenario.id.shape, scenario.id.classes, self.mean, self.std)

    def train(self, scenario: Scenario, runtime: Runtime, seed: int, log) -> Classifier:
        """Nothing to train: the classifier as it is."""
        model = Classifier(self.network, scenario.id.shape, scenario.id.classes, self.mean, self.std)
        return runtime.place(model).eval()


def statistic(name: str, given: list[float] | None, held: tuple[float, ...], path: str) -> list[float]:
    """The mean or the standard deviation of each channel, from the configuration or from the file.

    Raises:
        ConfigError: neither says it, or they contradict each other.
    """
    if given is None and not held:
        raise ConfigError(
            f"teacher.{name} is missing, and {path} has no normalisation layer that says it: set teacher.{name} to the "
            f"values that it was trained with, such as [0.5,0.5,0.5]"
        )
    if given is None:
        return list(held)
    differs = held and (len(given) != len(held) or any(abs(a - b) > SAME for a, b in zip(given, held, strict=True)))
    if differs:
        raise ConfigError(
            f"teacher.{name}={list(given)}, but the network in {path} normalises its images itself with "
            f"{name} {list(held)}: leave teacher.mean and teacher.std out"
        )
    return list(given)
