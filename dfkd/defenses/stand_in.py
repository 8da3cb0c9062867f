"""A copy of a teacher from which a trap is removed, and which is then distilled in the teacher's place."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd.defenses.carried import Carried
from dfkd.defenses.overlays import Draw
from dfkd.models import Teacher

IMAGES = 256  # images on which carriers are sought
LR = 5e-4  # of Adam
BATCH = 64  # images of other classes in a step, and as many of them under carriers
SEEK_EVERY = 30  # steps from one search for carriers to the next
FEW = 8  # images of the trap's class in a step


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

        Every step of Adam minimises the mean of KL(teacher || copy) over images of other classes, over others of them
        under carriers, with the teacher's answers to the images without them, and over a few images of the trap's
        class: most of these are trapped, but without them the class would be lost. This is the idea of I-BAU (Zeng et
        al., ICLR 2022, arXiv 2110.03735), which takes real images, for synthetic ones.

        Args:
            carried: finds and remembers the carriers; every `SEEK_EVERY` steps they are sought anew, with the copy as
                it is then.
            images, logits: synthetic images (N, C, H, W) and the teacher's logits for them (N, classes).
        """
        labels, draw = logits.argmax(1), Draw(generator)
        others, own = (mask.nonzero().flatten() for mask in (labels != carried.target, labels == carried.target))
        if not len(others):
            return
        known = images[draw.among(torch.arange(len(images), device=images.device), IMAGES)]
        before = self._inputs_of_norms(known)
        optimizer = torch.optim.Adam(self.net.parameters(), lr=LR)
        for step in range(steps):
            if step % SEEK_EVERY == 0:
                self.changed()
                chosen = draw.among(others, IMAGES)
                carried.seek((self,), images[chosen], labels[chosen], generator)
            plain = torch.cat([draw.among(others, BATCH), draw.among(own, FEW if len(own) else 0)])
            shown, targets = images[plain], logits[plain]
            if len(carried):
                base = draw.among(others, BATCH)
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

    @torch.no_grad()
    def _inputs_of_norms(self, images: Tensor) -> dict[nn.Module, tuple[Tensor, Tensor]]:
        """Return the mean and the variance of every channel of the inputs of each BatchNorm layer, over images."""
        found = {}

        def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            channels = inputs[0].transpose(0, 1).flatten(1)
            found[layer] = channels.mean(1), channels.var(1)

        handles = [layer.register_forward_pre_hook(look) for layer in self.net.modules() if _has_statistics(layer)]
        self.net(self.normalize(images))
        for handle in handles:
            handle.remove()
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


def _has_statistics(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.affine and layer.running_mean is not None
