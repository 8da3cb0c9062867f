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
        evals: number of forward passes, in images; a tensor if the device has counted them.
        dead: (B,), bool: the gradient was zero everywhere at the first step.
        saturated: (B,), bool: the largest softmax probability of the clean image is exactly 1 in float32.
    """

    flipped: Tensor
    margin: Tensor
    evals: int | Tensor
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
            x, evals = images.detach(), 0
            if logits is None:
                with torch.no_grad():
                    logits = model(x).float()
                evals = len(x)
            result = self.walk(model, x, self.draw(x, generator), logits, stop_when_flipped)
        result.evals += evals
        return result

    def draw(self, images: Tensor, generator: torch.Generator) -> Tensor | None:
        """Draw where each image starts in its ball, in [-1, 1] of the radius; None without a random start."""
        if not self.random_start:
            return None
        return torch.rand(images.shape, generator=generator, device=images.device) * 2 - 1

    def walk(
        self,
        model: Classifier,
        x: Tensor,
        start: Tensor | None,
        logits: Tensor,
        stop_when_flipped: bool,
        leave_out: bool = True,
    ) -> AttackResult:
        """Attack images (B, C, H, W) from given starts (`draw`), in the precision of the surrounding code.

        Args:
            leave_out: show the model no image that has flipped, if `stop_when_flipped`. Without it the model is shown
                all images in all steps, and no answer to an image that has flipped is used, or counted: the same work
                for any images, without a look at what the device has computed.

        Returns:
            the result; without `leave_out` its `evals` is a tensor.

        Raises:
            ValueError: the number of radii in eps is neither 1 nor the number of channels.
        """
        if len(self._radii) not in (1, x.shape[1]):
            raise ValueError(f"eps={self.eps} does not fit images of {x.shape[1]} channels")
        radius = torch.cat([torch.full((1, 1, 1, 1), eps, device=x.device) for eps in self._radii], 1)
        radius = radius.expand(1, x.shape[1], 1, 1)
        step = torch.full_like(radius, self.step) if self.step is not None else 2.5 * radius / self.steps
        low, high = x - radius, x + radius
        if self.box is not None:
            low = torch.maximum(low, x.clamp(max=self.box[0]))
            high = torch.minimum(high, x.clamp(min=self.box[1]))
        label = logits.argmax(1)
        flipped, dead = torch.zeros_like(label, dtype=torch.bool), torch.zeros_like(label, dtype=torch.bool)
        margin, evals = label_margin(logits, label), 0
        current = x if start is None else torch.minimum(torch.maximum(x + start * radius, low), high)
        attacked: Tensor | slice = slice(None)  # which images are shown
        for number in range(self.steps + 1):  # the extra pass only evaluates the result of the last step
            last = number == self.steps
            new_logits, gradient = self._look(model, current, label[attacked], gradient=not last)
            used = ~flipped[attacked] if stop_when_flipped else torch.ones_like(flipped[attacked])
            evals = evals + (len(current) if leave_out else used.sum())
            found = label_margin(new_logits, label[attacked]).where(used, torch.inf)
            margin[attacked] = torch.minimum(margin[attacked], found)
            flipped[attacked] |= used & (new_logits.argmax(1) != label[attacked])
            if last:
                break
            if number == 0:
                dead = (gradient == 0).flatten(1).all(1)
            current = current + step * gradient.sign()
            current = torch.minimum(torch.maximum(current, low[attacked]), high[attacked])
            if stop_when_flipped and leave_out:
                stays = ~flipped[attacked]
                current, attacked = current[stays], (~flipped).nonzero().flatten()
                if len(attacked) == 0:
                    break
        return AttackResult(flipped, margin, evals, dead, logits.softmax(1).amax(1) >= 1.0)

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
