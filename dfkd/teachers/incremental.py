"""The learner of one task of a chain, which keeps what the last learner knew with synthetic images of it."""

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd.domains import Images, to_float
from dfkd.models import Classifier, classifier_head, load_weights
from dfkd.scenarios import Scenario
from dfkd.teachers.base import TrainedTeacher, Training
from dfkd.weights import read

MEMORY = ("images", "all")  # names of the images in a pool's file, and in a student's file of samples


class Incremental(TrainedTeacher):
    """A learner of new classes that is distilled from the last learner without its data.

        L = CE(f(x), y) + weight * CE(f(s), [softmax(g(s)), 0])

    x and y are real images of the new classes. s are synthetic images that were made from the last learner g; the new
    classes get the probability 0 in its answers to them. Both halves of a batch pass the network together. The learner
    starts from the weights of g; the rows of its last layer that belong to new classes are fresh.

    A known limit of this loss: a learner may tell old classes from new ones by whether an image looks synthetic, and
    then it forgets the old ones on real images (Smith et al., ICCV 2021, arXiv 2106.09701, whose remedies are not built
    here).

    Args:
        last_path: safetensors file of g, the same network with fewer classes. None: this is the first learner.
        memory_path: safetensors file of the images s: a pool's, or the samples kept with a student. None: nothing is
            done against forgetting, which is plain fine-tuning.
        memory_weight: weight of the loss on s, at least 0.
        args, kwargs: arguments of `TrainedTeacher`.

    Raises:
        ValueError: a file is missing or cannot be read, memory_path is given without last_path, or memory_weight < 0.
    """

    def __init__(
        self,
        *args: Any,
        last_path: str | None = None,
        memory_path: str | None = None,
        memory_weight: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        if memory_weight < 0:
            raise ValueError(f"memory_weight must be at least 0, got {memory_weight}")
        if memory_path is not None and last_path is None:
            raise ValueError("memory_path needs last_path: the last learner labels the images of the memory")
        self.memory_weight, self.last_path = memory_weight, last_path
        self.last_weights = None if last_path is None else _tensors("last_path", last_path)
        self.memory = None if memory_path is None else _memory(memory_path)
        self.targets = self.draws = None

    def check(self, scenario: Scenario) -> None:
        super().check(scenario)
        if self.last_weights is not None:
            self.last_learner(scenario)
        if self.memory is not None and self.memory.shape[1:] != scenario.id.shape:
            raise ValueError(
                f"the images of memory_path are {tuple(self.memory.shape[1:])}, those of '{scenario.id.name}' are "
                f"{scenario.id.shape}"
            )

    def last_learner(self, scenario: Scenario) -> Classifier:
        """Return the last learner, in evaluation mode on the CPU.

        Raises:
            ValueError: the network has no last linear layer, the weights do not fit it, or they have as many classes as
                the scenario or more.
        """
        network, domain = copy.deepcopy(self.network).cpu(), scenario.id  # training moves `self.network`
        inputs, head = classifier_head(network).in_features, self.last_weights.get("head.weight")
        known = 0 if head is None else len(head)
        if not 0 < known < domain.classes:
            raise ValueError(
                f"last_path={self.last_path} is of {known} classes, and must be of fewer than the {domain.classes} of "
                f"'{domain.name}'; give the learner of the task before"
            )
        network.head = nn.Linear(inputs, known)
        load_weights(network, self.last_weights, self.last_path)
        return Classifier(network, domain.shape, known, domain.mean, domain.std).eval()

    def fit(self, training: Training) -> None:
        if self.last_weights is not None:
            last = training.runtime.to_device(self.last_learner(training.scenario))
            _go_on_from(training.model.net, last.net)
            if self.memory is not None:
                self._label_memory(last, training)
        super().fit(training)

    def _label_memory(self, last: Classifier, training: Training) -> None:
        """Compute the targets (M, classes) of the memory: the last learner's probabilities, and 0 for new classes."""
        runtime = training.runtime
        self.memory = self.memory.to(runtime.device)
        parts = [last.predict(to_float(part)).float().softmax(1) for part in self.memory.split(runtime.chunk)]
        self.targets = F.pad(torch.cat(parts), (0, training.model.classes - last.classes))
        self.draws = runtime.generator(training.seed, "teacher", "memory")

    def checkpoint_state(self) -> dict:
        """Return what a checkpoint saves: all attributes but those that are computed anew from the two files."""
        return {name: value for name, value in vars(self).items() if name not in ("memory", "targets", "last_weights")}

    def loss(
        self, model: Classifier, id_batch: Images, ood_batch: Images | None, ood_label: int | None
    ) -> dict[str, Tensor]:
        if self.memory is None:
            return {"new": F.cross_entropy(model(id_batch.x).float(), id_batch.y)}
        n = len(id_batch)
        index = torch.randint(len(self.memory), (n,), generator=self.draws, device=self.memory.device)
        logits = model(torch.cat([id_batch.x, to_float(self.memory[index])])).float()
        return {
            "new": F.cross_entropy(logits[:n], id_batch.y),
            "memory": self.memory_weight * F.cross_entropy(logits[n:], self.targets[index]),
        }


def _tensors(name: str, path: str) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file; raise ValueError if it is missing, damaged or something else."""
    if not Path(path).is_file():
        raise ValueError(f"{name}: there is no file {path}")
    tensors = read(path)
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ValueError(f"{name}={path} must be a safetensors file, of tensors by name")
    return tensors


def _memory(path: str) -> Tensor:
    """Read synthetic images (M, C, H, W) from a pool's file or a student's samples; raise ValueError if it has none."""
    tensors = _tensors("memory_path", path)
    images = next((tensors[name] for name in MEMORY if name in tensors), None)
    if images is None or images.dim() != 4 or len(images) == 0:
        raise ValueError(f"memory_path={path} holds no images (N, C, H, W) under the name {' or '.join(MEMORY)}")
    return images


@torch.no_grad()
def _go_on_from(network: nn.Module, last: nn.Module) -> None:
    """Copy all weights of the last learner; the head's rows of new classes stay as they are."""
    own, known = network.state_dict(), last.state_dict()
    for name, value in known.items():
        mine = own[name][: len(value)] if name.startswith("head.") else own[name]
        mine.copy_(value)
