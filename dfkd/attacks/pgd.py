"""Projected gradient descent on a frozen classifier (Madry et al., ICLR 2018, arXiv 1706.06083)."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd.machine.precision import exact_float32
from dfkd.models.classifier import Classifier


@dataclass
class AttackResult:
    """The result of an attack on a batch of images.

    Attributes:
        flipped: whether the predicted label changed at some step (B,), bool.
        margin: (B,), minimum over the steps of (logit of the original label - largest other logit); below 0 where
            flipped.
        evals: number of forward passes, in images.
        dead: (B,), bool: the gradient was zero everywhere at the first step.
        saturated: (B,), bool: the largest softmax probability of the clean image is exactly 1 in float32.
    """

    flipped: Tensor
    margin: Tensor
    evals: int
    dead: Tensor
    saturated: Tensor


@dataclass(frozen=True)
class PGD:
    """Untargeted L-infinity PGD against the label that the classifier predicts for the clean image.

    It computes in IEEE float32, whatever the precision of the run.

        x_0 = clip(x + u),  u ~ U(-eps, eps)            (random_start; else x_0 = x)
        x_k+1 = clip(x_k + step * sign(grad_x L(f(x_k), argmax f(x))))

    where clip projects onto the eps-ball around x and onto the box. Images are in pixel space, because the classifier
    normalises them itself. A radius eps corresponds to eps / std of each channel in the normalised space.

    Args:
        eps: radius per pixel, on the images' scale (such as 8/255 for images in [0, 1]); one number, or one per
            channel.
        step: step size; None means 2.5 eps / steps, which is enough to cross the ball (Madry et al.).
        steps: number of gradient steps.
        random_start: start at a random point of the ball.
        loss: 'ce' (cross-entropy) or 'margin' (largest other logit minus the label's logit; its gradient does not
            vanish where the softmax saturates).
        box: valid range of pixel values, or None. A pixel already outside the box (CAKE has such) is not moved into it.

    Raises:
        ValueError: eps < 0, step <= 0, steps < 1, or an unknown loss.

    Example:
        >>> result = PGD(eps=8 / 255, steps=10).attack(teacher, images, generator)
        >>> fragile = result.flipped
    """

    eps: float | list[float] = 4 / 255
    step: float | None = None
    steps: int = 10
    random_start: bool = True
    loss: str = "ce"
    box: tuple[float, float] | None = field(default=(0.0, 1.0))

    def __post_init__(self):
        if any(eps < 0 for eps in self._radii):
            raise ValueError(f"eps must not be negative, got {self.eps}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step must be positive (or null for 2.5 eps / steps), got {self.step}")
        if self.loss not in ("ce", "margin"):
            raise ValueError(f"loss must be 'ce' or 'margin', got '{self.loss}'")

    @property
    def _radii(self) -> list[float]:
        return [float(e) for e in self.eps] if isinstance(self.eps, list | tuple) else [float(self.eps)]

    def attack(
        self,
        model: Classifier,
        images: Tensor,
        generator: torch.Generator,
        logits: Tensor | None = None,
        stop_when_flipped: bool = True,
    ) -> AttackResult:
        """Attack a batch.

        Args:
            model: a classifier in evaluation mode. Its parameters get no gradients, and its buffers do not change.
            images: (B, C, H, W).
            generator: draws the random starts, once for the whole batch.
            logits: the model's logits for the clean images (B, classes); computed if None.
            stop_when_flipped: stop attacking an image as soon as its label has changed. `flipped` does not depend on
                this; `margin` is then the margin at the flip.

        Raises:
            ValueError: the number of radii in eps is neither 1 nor the number of channels.
        """
        with exact_float32(images.device):
            return self._attack(model, images.detach(), generator, logits, stop_when_flipped)

    def _attack(
        self, model: Classifier, x: Tensor, generator: torch.Generator, logits: Tensor | None, stop_when_flipped: bool
    ) -> AttackResult:
        if len(self._radii) not in (1, x.shape[1]):
            raise ValueError(f"eps={self.eps} does not fit images of {x.shape[1]} channels")
        radius = torch.tensor(self._radii, device=x.device).view(1, -1, 1, 1).expand(1, x.shape[1], 1, 1)
        step = torch.full_like(radius, self.step) if self.step is not None else 2.5 * radius / self.steps
        low, high = x - radius, x + radius
        if self.box is not None:
            low = torch.maximum(low, x.clamp(max=self.box[0]))
            high = torch.minimum(high, x.clamp(min=self.box[1]))
        evals = 0
        if logits is None:
            with torch.no_grad():
                logits = model(x).float()
            evals = len(x)
        label = logits.argmax(1)
        margin = label_margin(logits, label)
        result = AttackResult(
            flipped=torch.zeros_like(label, dtype=torch.bool),
            margin=margin.clone(),
            evals=evals,
            dead=torch.zeros_like(label, dtype=torch.bool),
            saturated=logits.softmax(1).amax(1) >= 1.0,
        )
        start = x
        if self.random_start:
            noise = torch.rand(x.shape, generator=generator, device=x.device) * 2 - 1
            start = torch.minimum(torch.maximum(x + noise * radius, low), high)
        alive = torch.arange(len(x), device=x.device)  # indices of the images still under attack
        current = start
        for number in range(self.steps + 1):  # the extra pass only evaluates the result of the last step
            last = number == self.steps
            logits, gradient = self._look(model, current, label[alive], gradient=not last)
            result.evals += len(current)
            margin = label_margin(logits, label[alive])
            result.margin[alive] = torch.minimum(result.margin[alive], margin)
            result.flipped[alive] |= logits.argmax(1) != label[alive]
            if last:
                break
            if number == 0:
                result.dead[alive] = (gradient == 0).flatten(1).all(1)
            current = current + step * gradient.sign()
            current = torch.minimum(torch.maximum(current, low[alive]), high[alive])
            if stop_when_flipped:
                unflipped = ~result.flipped[alive]
                alive, current = alive[unflipped], current[unflipped]
                if len(alive) == 0:
                    break
        return result

    def _look(self, model: Classifier, x: Tensor, label: Tensor, gradient: bool) -> tuple[Tensor, Tensor | None]:
        """Return the logits at x and, if `gradient`, the gradient of the attack's loss with respect to x."""
        if not gradient:
            with torch.no_grad():
                return model(x).float(), None
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = model(x).float()
            if self.loss == "ce":
                loss = F.cross_entropy(logits, label, reduction="sum")
            else:
                loss = -label_margin(logits, label).sum()
            return logits.detach(), torch.autograd.grad(loss, x)[0]


def label_margin(logits: Tensor, label: Tensor) -> Tensor:
    """Logit of the label minus the largest other logit (B,)."""
    own = logits.gather(1, label[:, None])[:, 0]
    other = logits.scatter(1, label[:, None], -torch.inf).amax(1)
    return own - other


def is_deterministic(model: Classifier, images: Tensor) -> bool:
    """Whether two forward passes of the classifier on the same images give equal logits."""
    with torch.no_grad():
        return torch.equal(model(images), model(images))


def attack_warnings(dead: float, saturated: float, deterministic: bool = True) -> list[str]:
    """Return reasons not to trust an attack, similar to AutoAttack's checks (arXiv 2003.01690).

    Where gradients are zero, the network is random or the softmax is saturated, the attack has no usable gradient.
    Images then count as robust only because the attack failed.

    Args:
        dead, saturated: shares of the attacked images for which `AttackResult.dead` and `.saturated` hold, in [0, 1].
        deterministic: whether the network is deterministic (`is_deterministic`).
    """
    warnings = []
    if not deterministic:
        warnings.append("the network gives different logits for the same images: flips are partly noise")
    if dead > 0.01:
        warnings.append(f"the gradient is exactly zero on {dead:.0%} of the images: they count as robust unattacked")
    if saturated > 0.1:
        warnings.append(
            f"the softmax is saturated on {saturated:.0%} of the images: cross-entropy gradients vanish there, use the "
            f"attack's loss=margin"
        )
    return warnings
