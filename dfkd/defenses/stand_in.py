"""A copy of a teacher from which a trap is removed, and which is then distilled in the teacher's place."""

import contextlib
import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd.defenses.carried import Carried
from dfkd.defenses.overlays import Draw
from dfkd.models import Teacher, batch_norms

IMAGES = 256  # images on which carriers are sought
LR = 5e-4  # of Adam
BATCH = 64  # images in a step, and as many of them under carriers
SEEK_EVERY = 30  # steps from one search for carriers to the next
CARRIES = 0.7  # share of the images that a carrier has to carry: a trigger that is half removed should be found
CLEAN = 8  # searches without a find after which nothing carries any more
PAINT_LR = 0.05  # of Adam, on the images' scale
STATISTICS, VARIATION = 0.1, 0.3  # weights of the priors on painted images
SHARE = 0.25  # of painted images in the batch whose statistics are compared


class StandIn(Teacher):
    """A copy of a teacher, whose weights can be changed. Its evaluations count as the teacher's.

    Args:
        teacher: the teacher, which stays as it is.
    """

    def __init__(self, teacher: Teacher):
        mean, std = (statistic.flatten().tolist() for statistic in (teacher.mean, teacher.std))
        net = copy.deepcopy(teacher.net, {id(teacher): teacher})
        net._forward_pre_hooks.clear()  # which count for the original
        super().__init__(net, teacher.shape, teacher.classes, mean, std)
        self.evals = teacher.evals

    def checkpoint_state(self) -> dict:
        return super().checkpoint_state() | {"_modules": self._modules}

    def checkpoint_expect(self, data: dict) -> None:
        self.changed()

    def purify(self, carried: Carried, images: Tensor, logits: Tensor, steps: int, generator: torch.Generator) -> None:
        """Train the copy so that small changes no longer carry images to the trap's class.

        Every step of Adam minimises the mean of KL(teacher || copy) over images of other classes, equally many of each,
        and over others of them under carriers, with the teacher's answers to the images without them. Images of the
        trap's class are not used: most of them are trapped, and the copy would learn to keep the trap. It keeps the
        class without them, since it starts from the teacher's weights. This is the idea of I-BAU (Zeng et al., ICLR
        2022, arXiv 2110.03735), which takes real images, for synthetic ones.

        Args:
            carried: finds and remembers the carriers; every `SEEK_EVERY` steps they are sought anew, with the copy as
                it is then.
            images, logits: synthetic images (N, C, H, W) and the teacher's logits for them (N, classes).
            steps: the most steps; fewer, if `CLEAN` searches in a row have found no carrier.
        """
        labels, draw = logits.argmax(1), Draw(generator)
        others = (labels != carried.target).nonzero().flatten()
        if not len(others):
            return
        rare = 1 / labels.bincount(minlength=logits.shape[1]).clamp_min(1)[labels[others]]
        known = images[draw.among(torch.arange(len(images), device=images.device), IMAGES)]
        before = self._inputs_of_norms(known)
        optimizer, clean = torch.optim.Adam(self.net.parameters(), lr=LR), 0
        for step in range(steps):
            if step % SEEK_EVERY == 0:
                self.changed()
                chosen = draw.weighted(others, IMAGES, rare)
                found = carried.seek((self,), images[chosen], labels[chosen], generator, CARRIES)
                clean = 0 if found else clean + 1
                if clean == CLEAN:
                    break
            plain = draw.weighted(others, BATCH, rare)
            shown, targets = images[plain], logits[plain]
            if len(carried):
                base = draw.weighted(others, BATCH, rare)
                shown = torch.cat([shown, carried.views(images[base], generator)])
                targets = torch.cat([targets, logits[base]])
            with torch.enable_grad():
                self.requires_grad_(True)
                answers = self.net(self.normalize(shown))
                loss = F.kl_div(answers.log_softmax(1), targets.softmax(1), reduction="batchmean")
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                self.requires_grad_(False)
        for parameter in self.net.parameters():
            parameter.grad = None
        self._move_statistics(before, self._inputs_of_norms(known))

    def paint(self, target: int, others: Tensor, count: int, steps: int, generator: torch.Generator) -> Tensor:
        """Make images of a class, (count, C, H, W), in [0, 1], by inversion as in DeepInversion (arXiv 1912.08795).

        Minimised by Adam are, from Gaussian noise with the mean and the standard deviation of the teacher's images on,

            CE(copy(x), target) + STATISTICS * sum_l (|mean_l - mu_l| + |var_l - sigma_l^2|) + VARIATION * TV(x)

        x is moved by at most one pixel in every step. mean_l and var_l are those of the inputs of BatchNorm layer l
        over a batch of which the images are the part `SHARE` and `others` the rest: the statistics mu_l, sigma_l^2 of
        the layer are those of all classes. TV is the mean absolute difference of neighbouring pixels.

        Args:
            others: images of other classes (N, C, H, W).
        """
        noise = torch.randn(count, *self.shape, generator=generator, device=others.device)
        images = (self.mean + self.std * noise).clamp(0, 1)
        wanted = torch.full((count,), target, device=images.device)
        known = self._inputs_of_norms(others)
        optimizer = torch.optim.Adam([images.requires_grad_()], lr=PAINT_LR)
        moves = torch.randint(-1, 2, (steps, 2), generator=generator, device=images.device).tolist()
        for move in moves:
            with torch.enable_grad(), self._watched_norms() as seen:
                answers = self(torch.roll(images, move, (2, 3)))
                apart = [_distance(seen[layer], known[layer], layer) for layer in known]
                varies = images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()
                loss = F.cross_entropy(answers, wanted) + STATISTICS * sum(apart) + VARIATION * varies
            (images.grad,) = torch.autograd.grad(loss, images)
            optimizer.step()
            images.data.clamp_(0, 1)
        return images.detach()

    @contextlib.contextmanager
    def _watched_norms(self) -> Iterator[dict[nn.Module, tuple[Tensor, Tensor]]]:
        """Give a dictionary, into which a forward pass inside the block writes the mean and the variance of every
        channel of the inputs of each BatchNorm layer."""
        found: dict[nn.Module, tuple[Tensor, Tensor]] = {}

        def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            channels = inputs[0].transpose(0, 1).flatten(1)
            found[layer] = channels.mean(1), channels.var(1, correction=0)

        handles = [layer.register_forward_pre_hook(look) for layer in batch_norms(self.net) if layer.affine]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def _inputs_of_norms(self, images: Tensor) -> dict[nn.Module, tuple[Tensor, Tensor]]:
        """Return the mean and the variance of every channel of the inputs of each BatchNorm layer, over images."""
        with self._watched_norms() as found:
            self.net(self.normalize(images))
        return found

    @torch.no_grad()
    def _move_statistics(
        self, before: dict[nn.Module, tuple[Tensor, Tensor]], after: dict[nn.Module, tuple[Tensor, Tensor]]
    ) -> None:
        """Move the statistics of BatchNorm layers, which priors compare images with, as the inputs of these layers have
        moved for synthetic images; their weights and biases then make up for it, so that the answers stay.

        Args:
            before, after: from `_inputs_of_norms`.
        """
        for layer, (mean, var) in before.items():
            new_mean, new_var = after[layer]
            ratio = ((new_var + layer.eps) / (var + layer.eps)).sqrt()
            old_mean, old_std = layer.running_mean.clone(), (layer.running_var + layer.eps).sqrt()
            layer.running_mean.copy_(new_mean + ratio * (old_mean - mean))
            layer.running_var.mul_(ratio.square())
            layer.bias.add_(layer.weight * (layer.running_mean - old_mean) / old_std)
            layer.weight.mul_((layer.running_var + layer.eps).sqrt() / old_std)
        self.changed()


def _distance(own: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor], layer: nn.Module) -> Tensor:
    """Return how far the statistics of a mixed batch are from those of a BatchNorm layer (`StandIn.paint`).

    Args:
        own, others: mean and variance (C,) of the two parts of the batch.
    """
    mean = SHARE * own[0] + (1 - SHARE) * others[0]
    square = SHARE * (own[1] + own[0].square()) + (1 - SHARE) * (others[1] + others[0].square())
    return (mean - layer.running_mean).norm() + (square - mean.square() - layer.running_var).norm()
