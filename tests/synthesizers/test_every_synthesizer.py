"""What holds for every shipped synthesizer, with its own prior, noise and generator, on every kind of teacher."""

import pytest
import torch
from shipped import options, synthesizer

from dfkd.domains import Images

EVERY = options("synthesizer")
# They optimise in the teacher's normalised space without clipping, or do not optimise.
LEAVE_THE_BOX = {"cake", "cake_2d", "cake_fast", "cake_mnist", "cake_svhn", "noise_images"}
CONTROLS = {"noise_images", "real"}


@pytest.fixture
def made(runtime, untrained):
    """Make a started synthesizer, with a teacher and a student of random weights."""

    def make(name: str, channels: int, norm: str, steps: int = 1):
        teacher, student = untrained(channels, norm)
        real = Images(torch.rand(6, channels, 8, 8), torch.arange(6))
        context = {"shape": (channels, 8, 8), "classes": 10, "box": (0.0, 1.0), "real": real, "chunk": 1000}
        torch.manual_seed(0)  # the generator's weights
        ready = synthesizer(name, norm == "batch", steps, **context)
        ready.check(teacher.net)
        ready.start(runtime, seed=0)
        return ready, teacher, student.train()

    return make


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("name", EVERY)
def test_a_round_makes_images_and_touches_nothing_else(name, norm, channels, made, one_round):
    if name == "cmi" and norm == "none":
        with pytest.raises(ValueError, match="BatchNorm"):
            made(name, channels, norm)
        return
    ready, teacher, student = made(name, channels, norm)
    batch = one_round(ready, teacher, student)
    images = batch.images
    assert images.shape[1:] == (channels, 8, 8) and len(images) > 1
    assert set(batch.columns) == set(ready.columns)
    assert all(len(column) == len(images) for column in batch.columns.values())
    if images.dtype == torch.uint8:
        assert images.min() < images.max()
    else:
        assert images.isfinite().all() and (name in LEAVE_THE_BOX or 0 <= images.min() < images.max() <= 1)
    if ready.generator is not None:
        still = [n for n, p in ready.generator.named_parameters() if p.grad is None or not p.grad.any()]
        assert still == [], "no gradient reaches these"
        assert all(p.grad.isfinite().all() for p in ready.generator.parameters())


@pytest.mark.parametrize("name", sorted(set(EVERY) - CONTROLS))
def test_more_steps_make_other_images(name, made):
    images = []
    for steps in (1, 4):
        ready, teacher, student = made(name, 3, "batch", steps)
        images.append(ready.synthesize(range(1), teacher, student).images.float())
    assert not torch.equal(*images)
