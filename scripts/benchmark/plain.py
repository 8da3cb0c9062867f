"""What the fast paths are compared with: the same mathematics, or less, written plainly. Nothing here calls dfkd."""

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DECAY = 5e-4  # weight decay of the plain trainings


def input_gradients(net: nn.Module, x: Tensor, steps: int, autocast=contextlib.nullcontext) -> None:
    """`steps` times a forward pass and the gradient of the inputs; no loss, no update."""
    x = x.detach().requires_grad_()
    for _ in range(steps):
        with autocast():
            logits = net(x)
        torch.autograd.grad(logits.sum(), x)


def cake_terms(net: nn.Module, x: Tensor, labels: Tensor, weights: tuple[float, float, float]) -> list[Tensor]:
    """Class term, contrast and total variation of one set of CAKE's images, weighted, as its public code computes them.

    Args:
        x: (B * G, C, H, W).
        labels: targets (B * G,), a row of G after the other; G is 10.
    """
    groups = 10
    logits = net(x)
    rows = logits.view(-1, groups, logits.shape[1])
    pairs = (rows[:, :, None] - rows[:, None]).square()  # (B, G, G, classes): every pair twice
    contrast = 0.5 * pairs.sum() / (len(rows) * logits.shape[1])
    tv = (x[:, :, 1:] - x[:, :, :-1]).abs().mean() + (x[..., 1:] - x[..., :-1]).abs().mean()
    return [weights[0] * groups * F.cross_entropy(logits, labels), weights[1] * contrast, weights[2] * tv]


def cake_set(
    net: nn.Module, x: Tensor, labels: Tensor, steps: int, eps: float, weights: tuple[float, float, float]
) -> Tensor:
    """One set of CAKE's images after `steps` steps of gradient descent from the noise x."""
    x = x.clone()
    for _ in range(steps):
        x.requires_grad_()
        gradient = torch.autograd.grad(sum(cake_terms(net, x, labels, weights)), x)[0]
        x = x.detach() - eps * gradient
    return x


def train(net: nn.Module, x: Tensor, target: Tensor, steps: int, lr: float, autocast=contextlib.nullcontext) -> None:
    """`steps` steps of SGD with momentum and weight decay on one batch; target: classes (B,) or their shares (B, C)."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=DECAY)
    for _ in range(steps):
        with autocast():
            logits = net(x)
        loss = F.cross_entropy(logits.float(), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def one_cycle(net: nn.Module, x: Tensor, y: Tensor, epochs: int, size: int, lr: float, decay: float) -> None:
    """Train a network on shifted images (N, C, H, W), as far as torch's OneCycleLR goes, in torch's own arithmetic."""
    steps = len(x) // size
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * steps + 1)
    net.train()
    for _ in range(epochs):
        for index in torch.randperm(len(x), device=x.device).split(size)[:steps]:
            pad = x.shape[2] // 8
            top, left = torch.randint(2 * pad + 1, (2, size))
            loss = F.cross_entropy(net(shifted(x[index], pad, top, left)), y[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def accuracy(net: nn.Module, x: Tensor, y: Tensor, size: int = 1000) -> float:
    """The share of images whose largest logit is their label, in percent."""
    net.eval()
    hits = [net(images).argmax(1) == labels for images, labels in zip(x.split(size), y.split(size), strict=True)]
    return 100 * torch.cat(hits).float().mean().item()


def distil(student: nn.Module, teacher: nn.Module, batches: list[Tensor], lr: float) -> None:
    """A step of SGD on every batch of images, towards the answers of a frozen teacher."""
    optimizer = torch.optim.SGD(student.parameters(), lr=lr, momentum=0.9, weight_decay=DECAY)
    student.train()
    for x in batches:
        with torch.no_grad():
            answers = teacher(x)
        loss = kl(student(x), answers)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def shifted(images: Tensor, pad: int, top: Tensor, left: Tensor) -> Tensor:
    """Every image cut out of itself with `pad` more edge pixels on all sides, at its own place."""
    height, width = images.shape[2:]
    padded = F.pad(images, (pad, pad, pad, pad), mode="replicate")
    places = zip(padded, top.tolist(), left.tolist(), strict=True)
    return torch.stack([image[:, y : y + height, x : x + width] for image, y, x in places])


def kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(softmax t || softmax s), the mean over a batch."""
    return F.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True)


def bn_distance(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """(logits, the BatchNorm prior): distance of every BatchNorm layer's input statistics from the running ones."""
    distances = []

    def look(layer: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        h = inputs[0]
        mean, var = h.mean((0, 2, 3)), h.var((0, 2, 3), correction=0)
        distances.append((var - layer.running_var).norm() + (mean - layer.running_mean).norm())

    handles = [m.register_forward_pre_hook(look) for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    logits = net(x)
    for handle in handles:
        handle.remove()
    return logits, sum(distances)


def dfq_gradients(
    generator: nn.Module, teacher: nn.Module, student: nn.Module, z: Tensor, bn: float, balance: float
) -> list[Tensor]:
    """Gradients of DFQ's generator loss in float32; teacher and student take the generator's images as they are."""
    images = generator(z)
    t, distance = bn_distance(teacher, images)
    s = student(images)
    p = t.softmax(1).mean(0)
    loss = F.cross_entropy(t, t.argmax(1)) - kl(s, t) + bn * distance + balance * (p * p.log()).sum()
    return list(torch.autograd.grad(loss, list(generator.parameters())))


def enlarged(generator: nn.Module, z: Tensor) -> Tensor:
    """A generator's images, its maps enlarged before they are convolved: its layers, but for those convolutions which
    do both."""
    h = generator.project(z).view(-1, *generator.start)
    for layer in generator.paint:
        if isinstance(layer, nn.Conv2d) and type(layer) is not nn.Conv2d:
            h = F.conv2d(F.interpolate(h, scale_factor=2.0), layer.weight, layer.bias, padding=1)
        else:
            h = layer(h)
    return h


class Round:
    """A bare DFQ round: a generator step against the student without priors, then KD steps on one resident batch.

    No pool is kept, and unless it is asked to draw, no images are drawn for the student and the teacher answers to
    nothing but the generator's step.
    """

    def __init__(self, generator: nn.Module, teacher: nn.Module, student: nn.Module, z: Tensor, batch: Tensor):
        self.generator, self.teacher, self.student, self.z, self.batch = generator, teacher, student, z, batch
        self.adam = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
        self.sgd = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
        with torch.no_grad():
            self.answers = teacher(batch).float()

    def __call__(self, steps: int, autocast, draw: int = 0) -> None:
        """A round.

        Args:
            draw: so many images are drawn and shown to the teacher, too.
        """
        self.student.eval()
        self.generator.train()
        with autocast():
            images = self.generator(self.z)
            t, s = self.teacher(images), self.student(images)
        t, s = t.float(), s.float()
        loss = F.cross_entropy(t, t.argmax(1)) - kl(s, t)
        parameters = list(self.generator.parameters())
        for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.grad = gradient
        self.adam.step()
        if draw:
            self.generator.eval()
            with torch.no_grad(), autocast():
                self.teacher(self.generator(torch.randn(draw, self.z.shape[1], device=self.z.device)))
        self.student.train()
        for _ in range(steps):
            with autocast():
                s = self.student(self.batch)
            loss = kl(s.float(), self.answers)
            self.sgd.zero_grad(set_to_none=True)
            loss.backward()
            self.sgd.step()
