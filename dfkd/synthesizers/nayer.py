"""NAYER: noisy layer generation (Tran et al., CVPR 2024, arXiv 2310.00258).

Needs the teacher's outputs, input gradients and BatchNorm statistics (the BN prior can be dropped), and an embedding of
every class. Looks at the student after its warm-up.
"""

from typing import Any

import torch
from torch import Tensor

from dfkd.machine.runtime import stream_seed
from dfkd.models import NLGenerator, Teacher
from dfkd.synthesizers.embeddings import label_embeddings, orthogonal
from dfkd.synthesizers.inversion import Inversion, Work, balanced_labels, check_adam
from dfkd.synthesizers.renew import renew
from dfkd.training.optimizers import fused


class NAYER(Inversion):
    """A generator of images from label embeddings, without latent vectors: variety comes from its noisy layers.

        one_hot * CE(t, y) + adversarial * adversarial_term (where t and s agree) + BN prior with moving averages

    In every round new noisy layers are drawn, and generator and noisy layers take `steps` steps of a new Adam. Every
    `renewal` rounds the whole generator is initialised anew.

    Args:
        generator: an `NLGenerator`.
        embeddings: 'orthogonal' (seeded orthogonal vectors: classes as different as can be), 'file', or 'open_clip'
            (the text embeddings of "a image of <label>").
        path: of a safetensors file with one tensor (classes, generator.latent), for 'file'.
        labels: names of the classes, for 'open_clip'.
        renewal: rounds from one initialisation of the generator to the next; None: never anew.
        lr, betas: of Adam.
        args, kwargs: the arguments of `Inversion`.

    Raises:
        ValueError: a number out of range, a generator of another kind, or embeddings that cannot be had.
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
        if renewal is not None and renewal < 1:
            raise ValueError(f"renewal must be at least 1, or null for never, got {renewal}")
        check_adam(lr, betas)
        self.generator, self.renewal, self.lr, self.betas = generator, renewal, lr, tuple(betas)
        self.given = label_embeddings(embeddings, path, labels, self.classes, generator.latent)

    def start(self, runtime, seed: int) -> None:
        super().start(runtime, seed)
        runtime.place(self.generator).train()
        given = self.given
        if given is None:
            given = orthogonal(self.classes, self.generator.latent, stream_seed(seed, "synthesis", "embeddings"))
        self.embeddings = given.to(runtime.device)

    def labels(self, stream: torch.Generator) -> Tensor:
        # class by class: the rows of one noisy layer are all different
        return balanced_labels(self.batch_size, self.classes, stream, shuffle=False)

    def begin(self, round: int, labels: Tensor, teacher: Teacher, stream: torch.Generator) -> Work:
        if self.renewal is not None and round % self.renewal == 0:
            renew(self.generator, self.seed, "synthesis", "generator", round)
        self.generator.redraw(len(labels), stream)
        parameters = list(self.generator.parameters())
        optimizer = fused(torch.optim.Adam, parameters, lr=self.lr, betas=self.betas)
        embeddings = self.embeddings[labels]
        return Work(lambda: self.generator(embeddings), parameters, optimizer.step)
