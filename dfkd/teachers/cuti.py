"""CUTI-domain: a compact un-transferable isolation domain (Wang et al., CVPR 2023, arXiv 2303.11078)."""

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd.domains import Images
from dfkd.models import Classifier, on_stages
from dfkd.scenarios import Scenario
from dfkd.teachers.backdoor import fit_both
from dfkd.teachers.base import TrainedTeacher, Training
from dfkd.teachers.style import has_style, require_style, restyle


class CUTI(TrainedTeacher):
    """A teacher that is wrong on the OOD domain, and on the isolation domain: OOD images in the style of ID images.

    Close set:  L = l(ID) - min(alpha * l(OOD), 1),  l = CE / C.
    Open set:   L = CE(ID) + CE(OOD, taught label).

    ID and OOD images pass the network in one concatenated batch. In every second step, starting with the second, the
    OOD half of the feature maps is restyled after every stage by the ID half it is paired with (`restyle`), so that the
    isolation domain replaces the OOD domain. The ID half is never changed. Only the plain network is saved.

    Args:
        alpha: weight of the OOD loss, positive.
        args, kwargs: arguments of `TrainedTeacher`.

    Raises:
        ValueError: alpha is not positive.
    """

    needs_ood = True

    def __init__(self, *args: Any, alpha: float = 0.1, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if alpha <= 0:
            raise ValueError(f"alpha must be positive, got {alpha}")
        self.alpha = alpha
        self.styles = torch.Generator()

    def check(self, scenario: Scenario) -> None:
        super().check(scenario)
        require_style("cuti", self.network, scenario.id.shape)

    def fit(self, training: Training) -> None:
        self.styles = training.runtime.generator(training.seed, "teacher", "styles")
        super().fit(training)

    def loss(
        self, model: Classifier, id_batch: Images, ood_batch: Images | None, ood_label: int | None
    ) -> dict[str, Tensor]:
        n = len(id_batch)

        def isolate(_stage: int, maps: Tensor) -> Tensor | None:
            if not has_style(maps):
                return None
            id, ood = maps[:n], maps[n:]
            return torch.cat([id, restyle(ood, id[: len(ood)], self.styles)])

        with on_stages(model.net, isolate) if self.step % 2 else contextlib.nullcontext():
            if ood_label is not None:
                return fit_both(model, id_batch, ood_batch, ood_label)
            logits = model(torch.cat([id_batch.x, ood_batch.x])).float()
        id_loss = F.cross_entropy(logits[:n], id_batch.y) / model.classes
        ood_loss = F.cross_entropy(logits[n:], ood_batch.y) / model.classes
        return {"id": id_loss, "trap": -(self.alpha * ood_loss).clamp(max=1)}
