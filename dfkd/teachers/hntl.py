"""H-NTL: non-transferable representations from content and style (Hong et al., ICLR 2024, openreview FYKVPOHCpE)."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd.domains import Images
from dfkd.models import DCGAN, Classifier
from dfkd.recipe import Recipe
from dfkd.scenarios import Scenario
from dfkd.teachers.base import TrainedTeacher, Training


def divergence(mean: Tensor, log_var: Tensor) -> Tensor:
    """sum (mean^2 + exp(log_var) - 1 - log_var) over images and latent dimensions: 2 KL(N(mean, var) || N(0, 1))."""
    return (mean.square() + log_var.exp() - 1 - log_var).sum()


class Encoder(nn.Module):
    """A copy of a network's feature extractor and a linear layer: image -> mean and log-variance of a latent vector."""

    def __init__(self, net: nn.Module, shape: tuple[int, int, int], latent: int):
        super().__init__()
        self.net = copy.deepcopy(net)
        with torch.no_grad():
            size = self.net.eval().features(torch.zeros(1, *shape)).shape[1]
        self.moments = nn.Linear(size, 2 * latent)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, C, H, W) -> (mean, log-variance), (B, latent) each."""
        return self.moments(self.net.features(inputs)).float().chunk(2, dim=1)


class Guide(nn.Module):
    """The networks that stage 1 trains and that give the targets of stage 2; discarded afterwards.

    They are a content and a style encoder, a linear classifier of the label (on the content latent) and one of the
    domain (on the style latent), and a decoder from both latents to the image in [0, 1].
    """

    def __init__(self, net: nn.Module, shape: tuple[int, int, int], classes: int, latent: int, width: int):
        super().__init__()
        self.content, self.style = Encoder(net, shape, latent), Encoder(net, shape, latent)
        self.label, self.domain = nn.Linear(latent, classes), nn.Linear(latent, 2)
        self.decoder = DCGAN(shape, 2 * latent, width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, classes) of the label classifier at the mean of the content latent."""
        return self.label(self.content(inputs)[0])

    def of_style(self, inputs: Tensor) -> Tensor:
        """Logits (B, classes) of the label classifier at the mean of the style latent."""
        return self.label(self.style(inputs)[0])


@dataclass(frozen=True)
class Disentanglement:
    """Options of stage 1, which separates content from style.

    Args:
        recipe, epochs: training options of this stage (the batch size is that of stage 2).
        latent: length of each latent vector, at least 1.
        kl: weight of the divergence of each latent from N(0, 1), summed over images and latent dimensions.
        reconstruction: weight of the decoder's mean squared error.
        width: width of the decoder, at least 2.

    Raises:
        ValueError: a number is out of range.
    """

    recipe: Recipe = field(default_factory=Recipe)
    epochs: int = 30
    latent: int = 256
    kl: float = 1e-5
    reconstruction: float = 0.1
    width: int = 32

    def __post_init__(self):
        if self.epochs < 1 or self.latent < 1 or self.kl < 0 or self.reconstruction < 0 or self.width < 2:
            raise ValueError(
                f"disentangle needs epochs >= 1, latent >= 1, width >= 2, kl >= 0 and reconstruction >= 0, got "
                f"epochs={self.epochs}, latent={self.latent}, width={self.width}, kl={self.kl}, "
                f"reconstruction={self.reconstruction}"
            )


def disentangle(
    guide: Guide,
    model: Classifier,
    id_batch: Images,
    ood_batch: Images,
    kl: float,
    reconstruction: float,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Compute the terms of stage 1 on both domains, with one concatenated forward pass per encoder.

        CE(label(z_c), y) + CE(domain(z_s), ID or OOD) + kl (D_c + D_s) + reconstruction MSE(decoder([z_c, z_s]), x)

    For each encoder, z ~ N(mean, var) is drawn from `generator`, and D is its `divergence`. Images x are in [0, 1].
    """
    images = torch.cat([id_batch.x, ood_batch.x])
    labels = torch.cat([id_batch.y, ood_batch.y])
    domain = torch.zeros_like(labels)
    domain[len(id_batch) :] = 1
    inputs = model.normalize(images)
    moments = guide.content(inputs), guide.style(inputs)
    z_c, z_s = (
        mean + torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype) * (log_var / 2).exp()
        for mean, log_var in moments
    )
    painted = guide.decoder(torch.cat([z_c, z_s], dim=1)).float()
    return {
        "content": F.cross_entropy(guide.label(z_c).float(), labels),
        "style": F.cross_entropy(guide.domain(z_s).float(), domain),
        "kl": kl * sum(divergence(*pair) for pair in moments),
        "reconstruction": reconstruction * F.mse_loss(painted, images),
    }


class HNTL(TrainedTeacher):
    """A teacher whose logits depend on the content of ID images and on the style of OOD images.

    Stage 1 trains a `Guide` on both domains (`disentangle`). Stage 2 trains the network f, which is the teacher:

        L = MSE(f(x_id), label(content(x_id))) + MSE(f(x_ood), label(style(x_ood)))

    Style encodes the domain and not the class, so f is wrong on OOD images. The encoders start from the network's own
    initial weights. In stage 2 the latents are set to their means, while the public code samples them; because the
    label classifier is linear, the targets are the same in expectation.

    It needs a close set, because the content encoder learns the labels of both domains.

    Args:
        disentangle: options of stage 1. `recipe` and `epochs` are those of stage 2.
        args, kwargs: arguments of `TrainedTeacher`.

    Raises:
        ValueError: the network has no `features` and `head`.
    """

    needs_ood = True

    def __init__(self, *args: Any, disentangle: Disentanglement, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not hasattr(self.network, "features") or not hasattr(self.network, "head"):
            raise ValueError("teacher=hntl makes encoders of features: its network must have features(x)")
        self.disentangle = disentangle
        self.guide: Guide | None = None
        self.noise = torch.Generator()

    @property
    def log_calls(self) -> int:
        return self.disentangle.epochs + self.epochs

    def check(self, scenario: Scenario) -> None:
        super().check(scenario)
        if scenario.ood_label is not None:
            raise ValueError(
                "teacher=hntl has no form with a taught label, it learns the labels of both domains: choose "
                "ntl_scenario=close_set"
            )
        if not scenario.id.modality.has_pixels:
            raise ValueError(
                f"teacher=hntl paints images in [0, 1], and '{scenario.id.name}' is a domain of "
                f"{scenario.id.modality.name}; choose another teacher (ntl, sophon)"
            )
        DCGAN(scenario.id.shape, 2 * self.disentangle.latent, self.disentangle.width)

    def fit(self, training: Training) -> None:
        stage, model = self.disentangle, training.model
        self.noise = training.runtime.generator(training.seed, "teacher", "latents")
        self.guide = training.runtime.to_device(
            Guide(copy.deepcopy(model.net).cpu(), model.shape, model.classes, stage.latent, stage.width)
        )
        content = Classifier(self.guide, model.shape, model.classes, *_normalisation(model))
        training.runtime.to_device(content).train()
        self.descend(
            training,
            self.guide,
            lambda i, o: disentangle(self.guide, model, i, o, stage.kl, stage.reconstruction, self.noise),
            stage.recipe,
            stage.epochs,
            content,
        )
        self.guide.eval().requires_grad_(False)
        super().fit(training)
        self.guide = None

    def loss(
        self, model: Classifier, id_batch: Images, ood_batch: Images | None, ood_label: int | None
    ) -> dict[str, Tensor]:
        with torch.no_grad():
            of_content = self.guide(model.normalize(id_batch.x)).float()
            of_style = self.guide.of_style(model.normalize(ood_batch.x)).float()
        answers = model(torch.cat([id_batch.x, ood_batch.x])).float()
        n = len(id_batch)
        return {"id": F.mse_loss(answers[:n], of_content), "ood": F.mse_loss(answers[n:], of_style)}


def _normalisation(model: Classifier) -> tuple[list[float], list[float]]:
    return model.mean.flatten().tolist(), model.std.flatten().tolist()
