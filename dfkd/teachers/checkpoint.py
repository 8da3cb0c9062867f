"""Weights trained elsewhere as the teacher. The file is not trusted: no code in it is ever executed."""

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
SAME = 1e-3  # largest accepted difference between the configured mean or std (images in [0, 1]) and the file's


class Checkpoint(TeacherSource):
    """A finished teacher from a file.

    Args:
        network: the network the weights belong to. The file may use the network's own layer names or a naming of
            `dfkd/weights/namings.yaml`.
        path: a safetensors or npz file, or a file written by torch.save (loaded with weights_only=True).
        mean, std: normalisation that the network was trained with, per channel, for images in [0, 1]. None means that
            of a normalisation layer in the file.
        entry: which state dict in the file to take if several fit the network: its keys, joined by dots.
        shape: (C, H, W) of the images, if known; in some networks the position of the pooling layers depends on it.

    Raises:
        ConfigError: the file is missing, unreadable or unsafe, does not fit the network, or fits it in several ways; it
            contains broken weights; its normalisation is unknown or contradicts mean and std.
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
        """Return the loaded classifier; nothing is trained."""
        model = Classifier(self.network, scenario.id.shape, scenario.id.classes, self.mean, self.std)
        return runtime.to_device(model).eval()


def statistic(name: str, configured: list[float] | None, stored: tuple[float, ...], path: str) -> list[float]:
    """Return the mean or the standard deviation per channel, from the configuration or from the file.

    Args:
        name: 'mean' or 'std'.
        configured: values from the configuration, or None.
        stored: values from the file; empty if it has no normalisation layer.

    Raises:
        ConfigError: the values are given nowhere, or the two sources contradict each other.
    """
    if configured is None and not stored:
        raise ConfigError(
            f"teacher.{name} is missing, and {path} has no normalisation layer that says it: set teacher.{name} to the "
            f"values that it was trained with, such as [0.5,0.5,0.5]"
        )
    if configured is None:
        return list(stored)
    differs = stored and (
        len(configured) != len(stored) or any(abs(a - b) > SAME for a, b in zip(configured, stored, strict=True))
    )
    if differs:
        raise ConfigError(
            f"teacher.{name}={list(configured)}, but the network in {path} normalises its images itself with "
            f"{name} {list(stored)}: leave teacher.mean and teacher.std out"
        )
    return list(configured)
