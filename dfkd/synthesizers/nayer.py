"""NAYER: noisy layer generation (Tran et al., CVPR 2024, arXiv 2310.00258).

Needs the teacher's outputs, input gradients and BatchNorm statistics (the BN prior is optional), and an embedding of
every class. Uses the student after its warm-up.
"""

from typing import Any

import torch
from torch import Tensor

from dfkd.machine.runtime import stream_seed
from dfkd.models import NLGenerator, Teacher
from dfkd.synthesizers.embeddings import label_embeddings, orthogonal
from dfkd.synthesizers.inversion import Inversion, balanced_labels, check_adam
from dfkd.synthesizers.renew import renew
from dfkd.synthesizers.step import Optimization
from dfkd.training.optimizers import fused


class NAYER(Inversion):
    """A generator of images from label embeddings, without latent vectors; its noisy layers give the variety.

        one_hot * CE(t, y) + adversarial * adversarial_term (where t and s agree) + BN prior with moving averages

    In every round the noisy layers are drawn again, and the generator with these layers takes `steps` steps of a new
    Adam. Every `renewal` rounds the whole generator is initialised again.

    Args:
        generator: an `NLGenerator`.
        embeddings: 'orthogonal' (random orthogonal vectors from the seed), 'file', or 'open_clip' (text embeddings of
            "a image of <label>").
        path: for 'file', a safetensors file with one tensor (classes, generator.latent).
        labels: for 'open_clip', the names of the classes.
        renewal: number of rounds between two initialisations of the generator; None means only one.
        warm_up_renewal: the same in the warm-up; None means `renewal`.
        lr, betas: options of Adam.
        args, kwargs: arguments of `Inversion`.

    Raises:
        ValueError: a number is out of range, the generator has no noisy layer, or embeddings cannot be loaded.
    """

    def __init__(
        self,
        generator: NLGenerator,
        *args: Any,
        one_hot: float = 0.5,
        adversarial: float = 1.33,
        warm_up: int = 200,
        embeddings: str = "orthogonal",
        path: str | None = None,
        labels: list[str] | None = None,
        renewal: int | None = 20,
        warm_up_renewal: int | None = None,
        lr: float = 4e-3,
        betas: tuple[float, float] = (0.5, 0.999),
        **kwargs: Any,
    ):
        super().__init__(*args, one_hot=one_hot, adversarial=adversarial, warm_up=warm_up, **kwargs)
        if not hasattr(generator, "redraw"):
            raise ValueError(
                f"nayer needs a generator with a noisy layer, not {type(generator).__name__}; take "
                f"generator@synthesizer.generator=nayer"
            )
        for name, value in (("renewal", renewal), ("warm_up_renewal", warm_up_renewal)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, or null, got {value}")
        check_adam(lr, betas)
        self.generator, self.renewal, self.lr, self.betas = generator, renewal, lr, tuple(betas)
        self.warm_up_renewal = warm_up_renewal or renewal
        self.given_embeddings = label_embeddings(embeddings, path, labels, self.classes, generator.latent)

    def start(self, runtime, seed: int) -> None:
        super().start(runtime, seed)
        runtime.to_device(self.generator).train()
        embeddings = self.given_embeddings
        if embeddings is None:
            embeddings = orthogonal(self.classes, self.generator.latent, stream_seed(seed, "synthesis", "embeddings"))
        self.embeddings = embeddings.to(runtime.device)

    def labels(self, stream: torch.Generator) -> Tensor:
        # Unshuffled, so that the images which share a noisy layer have different classes.
        return balanced_labels(self.batch_size, self.classes, stream, shuffle=False)

    def begin(self, round: int, labels: Tensor, teacher: Teacher, stream: torch.Generator) -> Optimization:
        renewal = self.warm_up_renewal if round < self.warm_up else self.renewal
        if renewal is not None and round % renewal == 0:
            renew(self.generator, self.seed, "synthesis", "generator", round)
        self.generator.redraw(len(labels), stream)
        optimizer = fused(torch.optim.Adam, self.generator.parameters(), lr=self.lr, betas=self.betas)
        return Optimization(self.generator, self.embeddings[labels], optimizer.step, (self.generator,))
