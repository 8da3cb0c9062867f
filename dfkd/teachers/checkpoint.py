"""Somebody else's weights as the teacher. The file is not trusted: no code of it is ever run."""

import pickle
import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dfkd.domains import check_normalisation
from dfkd.errors import ConfigError
from dfkd.machine.runtime import Runtime
from dfkd.models import Classifier, load_weights
from dfkd.scenarios import Scenario
from dfkd.teachers.base import TeacherSource

# Where training scripts put the weights inside what they save.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a PyTorch state dict.

    A state dict may be wrapped as `{'state_dict': ...}` (or model, net, ...) and its keys prefixed with `module.`
    (DataParallel) or `_orig_mod.` (torch.compile).

    Raises:
        ConfigError: there is no such file, it is damaged, or it is a pickle that would run code.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"there is no checkpoint {file.resolve()}; set teacher.path")
    try:
        found = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own words go on to recommend weights_only=False
        name = re.search(r"GLOBAL (\S+)", str(error))
        raise ConfigError(
            f"{file} is refused: it is not a plain state dict, loading it could run code"
            f"{f' ({name[1]})' if name else ''}. Ask for safetensors, or save model.state_dict() alone"
        ) from error
    except Exception as error:  # a damaged file fails in too many ways to name
        raise ConfigError(f"{file} cannot be read, it seems truncated or is no checkpoint: {error}") from error
    for wrapper in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not any(isinstance(value, Tensor) for value in found.values()):
        raise ConfigError(f"{file} holds no tensors by name; save model.state_dict()")
    return {
        key.removeprefix("_orig_mod.").removeprefix("module."): value
        for key, value in found.items()
        if isinstance(value, Tensor)
    }


class Checkpoint(TeacherSource):
    """A finished teacher from a file.

    Args:
        network: the network the weights belong to.
        path: a safetensors file, or a state dict saved by torch.save (loaded with weights_only=True).
        mean, std: the normalisation it was trained with, per channel; images come in [0, 1].

    Raises:
        ConfigError: the file is missing, unreadable or unsafe, does not fit the network, or holds broken weights.
    """

    def __init__(self, network: nn.Module, path: str, mean: list[float], std: list[float]):
        if not path:
            raise ConfigError("teacher=checkpoint needs teacher.path=FILE (safetensors, or a PyTorch state dict)")
        weights = read_weights(path)
        if hasattr(network, "net") and not any(key.startswith("net.") for key in weights):
            weights = {f"net.{key}": value for key, value in weights.items()}  # a bare timm state dict
        load_weights(network, weights, path)
        self.network, self.mean, self.std = network, list(mean), list(std)

    def check(self, scenario: Scenario) -> None:
        """Raise ValueError if the network or its normalisation does not fit the scenario's images and classes."""
        check_normalisation(self.mean, self.std, scenario.id.box)
        Classifier(self.network, scenario.id.shape, scenario.id.classes, self.mean, self.std)

    def train(self, scenario: Scenario, runtime: Runtime, seed: int, log) -> Classifier:
        """Nothing to train: the classifier as it is."""
        model = Classifier(self.network, scenario.id.shape, scenario.id.classes, self.mean, self.std)
        return runtime.place(model).eval()
