"""Adversarial robustness on ID images."""

from dataclasses import replace

import torch
from torch import Tensor

from dfkd.attacks import PGD
from dfkd.measures.base import CHOICE_SEED, Measure, check_count, chosen_images
from dfkd.metrics import Exam, percent
from dfkd.models import Classifier


class PGDAccuracy(Measure):
    """Accuracy on ID images under an untargeted L-infinity attack (`dfkd.attacks.PGD`), in percent.

    An image counts as right if the model gives its true label to the clean image and to every image that the attack
    passes through. At eps = 0 this is the accuracy on the chosen images. It is an upper bound of the robust accuracy,
    because a stronger attack may change more labels.

    Args:
        eps: radius per pixel, on the images' scale, such as 8/255.
        steps: gradient steps of the attack, each of size 2.5 eps / steps.
        images: at most this many images, the same ones for every model; None for all.
        loss: 'margin', whose gradient does not vanish where the softmax saturates, or 'ce'.

    Raises:
        ValueError: eps < 0, steps < 1, images < 1, or loss is unknown.
    """

    def __init__(self, eps: float, steps: int = 20, images: int | None = 500, loss: str = "margin"):
        check_count("images", images)
        self.attack, self.images = PGD(eps=eps, steps=steps, loss=loss, box=None), images

    def __call__(self, exam: Exam) -> float:
        runtime, images = exam.runtime, chosen_images(exam.id.images, self.images)
        attack = replace(self.attack, box=exam.scenario.id.modality.box)
        generator = runtime.generator(CHOICE_SEED, "pgd")
        right = []
        for part in torch.arange(len(images)).split(runtime.chunk):
            x, y = images.pixels(part).to(runtime.device), images.y[part].to(runtime.device)
            right.append(_stays_right(attack, exam.model, x, y, generator))
        return percent(torch.cat(right))


def _stays_right(attack: PGD, model: Classifier, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return whether the model gives images (B, C, H, W) their labels (B,), and the attack does not change that."""
    mode = model.training
    model.eval()
    logits = model.predict(images).float()
    flipped = attack.attack(model, images, generator, logits).flipped
    model.train(mode)
    return (logits.argmax(1) == labels) & ~flipped
