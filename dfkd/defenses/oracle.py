"""A criterion that uses real data: for diagnosis only."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd.defenses.scores import Score
from dfkd.domains import Images
from dfkd.models import Teacher, classifier_head, watch_features


def fit_probe(features: Tensor, labels: Tensor, decay: float = 1e-3, iterations: int = 100) -> nn.Linear:
    """Logistic regression from zero weights, by L-BFGS: argmin mean BCE(w'f + b, y) + decay / 2 * |w|^2.

    Args:
        features: (N, D), standardised.
        labels: (N,), 1 for ID and 0 for OOD.
    """
    probe = nn.Linear(features.shape[1], 1).to(features.device)
    nn.init.zeros_(probe.weight), nn.init.zeros_(probe.bias)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(probe(features)[:, 0], labels.float())
        loss = loss + decay / 2 * probe.weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return probe.requires_grad_(False)


class Oracle(Score):
    """DIAGNOSIS ONLY, not a data-free method: a probe trained on real ID and OOD training images.

    The probe is a logistic regression on the teacher's penultimate features. It shows how good a defense could be if
    its split separated the two domains as well as labelled data allow. The score is the probe's log-odds for ID.
    An image is fragile if its score exceeds `value` (0 in conf/criterion/oracle.yaml), or if it is in the share
    `quantile` of the batch with the highest scores.

    Args:
        real, real_ood: training images of both domains (set from the scenario).
        images: use at most this many images per domain.
        chunk: images per forward pass of the teacher.
        fragile, kwargs: arguments of `Score`.

    Raises:
        ValueError: there is no OOD domain, or images < 1.
    """

    uses_real_data = True

    def __init__(
        self,
        real: Images,
        real_ood: Images | None = None,
        images: int = 2000,
        chunk: int = 1000,
        fragile: str = "high",
        **kwargs: Any,
    ):
        super().__init__(fragile=fragile, **kwargs)
        if real_ood is None:
            raise ValueError(
                "criterion=oracle needs an OOD domain; choose ntl_scenario=close_set, open_set or backdoor"
            )
        if images < 1:
            raise ValueError(f"images must be at least 1, got {images}")
        self.real, self.chunk = [part.take(slice(0, images)) for part in (real, real_ood)], chunk
        self.probe: nn.Linear | None = None
        self.accuracy: float | None = None  # the probe's accuracy on its training images, in [0, 1]

    def check(self, network: nn.Module) -> None:
        try:
            classifier_head(network)
        except ValueError as error:
            raise ValueError(f"criterion=oracle needs the teacher's features: {error}") from error

    def score(self, teacher: Teacher, images: Tensor, logits: Tensor) -> Tensor:
        if self.probe is None:
            self._train(teacher)
        return self._log_odds(self._features(teacher, images))

    def warnings(self) -> list[str]:
        warnings = ["the split is an oracle's, which has seen real ID and OOD images: a diagnosis, no data-free result"]
        if self.accuracy is not None and self.accuracy < 0.9:
            warnings.append(f"the oracle's probe tells only {self.accuracy:.0%} of its own training images apart")
        return warnings

    def checkpoint_state(self) -> dict:
        """Return what a checkpoint saves: nothing, because the probe can be trained again with the same result."""
        return {}

    def _train(self, teacher: Teacher) -> None:
        x = torch.cat([part.pixels() for part in self.real]).to(teacher.mean.device)
        labels = torch.cat([torch.full((len(part),), float(i == 0)) for i, part in enumerate(self.real)]).to(x.device)
        with teacher.counted_as("other"):
            features = self._features(teacher, x)
        self.mean, self.std = features.mean(0), features.std(0).clamp_min(1e-3)
        self.probe = fit_probe((features - self.mean) / self.std, labels)
        self.accuracy = ((self._log_odds(features) > 0) == labels.bool()).float().mean().item()

    def _features(self, teacher: Teacher, images: Tensor) -> Tensor:
        parts = []
        with watch_features(teacher.net) as features:
            for part in images.split(self.chunk):
                teacher(part)
                parts += features
        return torch.cat(parts)

    def _log_odds(self, features: Tensor) -> Tensor:
        return self.probe((features - self.mean) / self.std)[:, 0]
