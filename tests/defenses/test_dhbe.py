import contextlib
from pathlib import Path

import pytest
import torch
from elsewhere import ELSEWHERE
from killing import Killed, watched

from dfkd.defenses import DHBE, Defense
from dfkd.distill import KL, L1, Student, Trainer
from dfkd.models import Classifier, Teacher
from dfkd.pool import Pool, Split
from dfkd.recipe import Recipe
from dfkd.resume.checkpoints import Checkpoints

SHAPE, PIXELS = (1, 8, 8), (1, 1, 3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_distils_everything_and_adds_its_term(random):
    s, t = torch.randn(2, 4, 10, generator=random)
    divergence, loss = torch.rand(4, generator=random), KL()
    defense = DHBE(SHAPE, weight=0.3, size=3, latent=8, width=4)
    assert defense.loss(s, t, divergence, torch.zeros(4, dtype=torch.bool)) == {"kd": divergence.mean()}
    term = defense.student_term(loss, seeded())
    assert (term.loss, term.weight, term.every, term.triggers.latent) == (loss, 0.3, 5, 8)
    assert term.triggers(torch.randn(2, 8)).shape == (2, 1, 3, 3)
    assert DHBE(SHAPE, weight=0.0).student_term(loss, seeded()) is None


def test_a_student_with_such_a_term_is_trained_alone():
    assert Defense().mean_loss and not Defense().has_student_term
    assert DHBE(SHAPE).has_student_term and not DHBE(SHAPE).mean_loss


def trap(linear, kind: type[Classifier]) -> Classifier:
    """Says which of two pixels is brighter; but if the third is bright, too, it always says 0."""
    return linear([[1.0, -1.0, 1.5], [-1.0, 1.0, -1.5]], shape=PIXELS, kind=kind)


@pytest.fixture
def images(random) -> torch.Tensor:
    """The third pixel is dark in all of them, so that they do not show the trap."""
    images = torch.rand(128, *PIXELS, generator=random)
    images[..., 2] = 0
    return images


@pytest.fixture
def distilled(linear, runtime, images):
    """Distils the trap with a defense into a student that starts as its teacher does, as in the public code."""
    pool = Pool()
    pool.add(images, trap(linear, Teacher).predict(images), Split.everything(images))

    def train(defense: Defense, seed: int = 0, steps: int = 60, file: Path | None = None) -> Classifier:
        model = trap(linear, Classifier)
        recipe = Recipe(optimizer="adam", lr=0.1, batch_size=64, schedule="cosine", weight_decay=0.0)
        student = Student(model.net, recipe, L1(), epochs=1)
        checkpoints = Checkpoints(every=0, device=runtime.device)
        trainer = Trainer(model, student, defense, runtime, seed, steps, loop=checkpoints.loop)
        with contextlib.nullcontext() if file is None else checkpoints.stage("student", "key", file):
            checkpoints.register(model=model, trainer=trainer)
            trainer.train(pool, steps)
        return model

    return train


def dhbe(weight: float = 0.1, every: int = 5) -> DHBE:
    return DHBE(PIXELS, weight, size=1, latent=8, width=8, every=every)


def test_the_student_forgets_a_trigger_that_the_images_do_not_show(linear, distilled, images):
    triggered = images.clone()
    triggered[..., 2] = 1
    answers = trap(linear, Teacher).predict(images).argmax(1)
    for defense, rate in ((Defense(), 1.0), (dhbe(), 0.0)):
        student = distilled(defense)
        assert (student.predict(images).argmax(1) == answers).float().mean() > 0.95
        fooled = student.predict(triggered)[answers == 1].argmax(1) == 0
        assert fooled.float().mean().item() == pytest.approx(rate, abs=0.05)


def test_the_same_seed_gives_the_same_student(distilled):
    first, again, other, plain = (
        distilled(defense, seed, steps=6).net.head.weight
        for defense, seed in ((dhbe(), 0), (dhbe(), 0), (dhbe(), 1), (dhbe(0.0), 0))
    )
    assert torch.equal(first, again) and not torch.equal(first, other) and not torch.equal(first, plain)


def test_a_killed_training_goes_on_with_the_patches_it_had(distilled, tmp_path, caplog, device):
    if device == ELSEWHERE:
        pytest.skip("the stand-in for a GPU has no storages, which a checkpoint saves")
    with watched(kill_at=4), pytest.raises(Killed):  # the patch generator has taken two steps
        distilled(dhbe(every=2), steps=8, file=tmp_path / "file")
    with watched() as rest:
        resumed = distilled(dhbe(every=2), steps=8, file=tmp_path / "file")
    undisturbed = distilled(dhbe(every=2), steps=8)
    assert len(rest) == 4 and "WARNING" not in caplog.text
    assert torch.equal(resumed.net.head.weight, undisturbed.net.head.weight)


@pytest.mark.parametrize(
    ("name", "value"),
    [("weight", -0.1), ("size", 0), ("latent", 0), ("width", 0), ("every", 0), ("lr", 0.0)],
)
def test_impossible_numbers_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name} .*{value}"):
        DHBE(SHAPE, **{name: value})


@pytest.mark.parametrize(("shape", "most"), [((3, 8, 4), 4), ((1, 2, 1), 1)])
def test_a_patch_must_fit_the_images(shape, most):
    DHBE(shape, size=most)
    with pytest.raises(ValueError, match=rf"patch of 5x5 .*defense\.size to {most} or less"):
        DHBE(shape, size=5)
