import pytest
import torch

from dfkd.defenses import DHBE, Defense
from dfkd.distill import L1, Student, Trainer
from dfkd.models import Classifier, Teacher
from dfkd.pool import Pool, Split
from dfkd.recipe import Recipe

SHAPE = (1, 8, 8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_distils_everything_and_adds_its_term(random):
    s, t = torch.randn(2, 4, 10, generator=random)
    divergence, defense = torch.rand(4, generator=random), DHBE(SHAPE, weight=0.3, size=3, latent=8, width=4)
    assert defense.loss(s, t, divergence, torch.zeros(4, dtype=torch.bool)) == {"kd": divergence.mean()}
    term = defense.student_term(seeded())
    assert (term.weight, term.every, term.triggers.latent) == (0.3, 5, 8)
    assert term.triggers(torch.randn(2, 8)).shape == (2, 1, 3, 3)
    assert DHBE(SHAPE, weight=0.0).student_term(seeded()) is None


def test_a_student_with_such_a_term_is_trained_alone():
    assert Defense().mean_loss and not Defense().has_student_term
    assert DHBE(SHAPE).has_student_term and not DHBE(SHAPE).mean_loss


def trap(linear, kind: type[Classifier]) -> Classifier:
    """Tells whether the left half is brighter than the right one; but two bright pixels in the corner mean class 0."""
    weight = torch.zeros(2, 8, 8)
    weight[:, :, 0:4], weight[:, :, 4:8] = (
        torch.tensor([0.5, -0.5])[:, None, None],
        torch.tensor([-0.5, 0.5])[:, None, None],
    )
    weight[0, 7, 6:], weight[1, 7, 6:] = 20.0, -20.0
    return linear(weight.flatten(1).tolist(), shape=SHAPE, kind=kind)


@pytest.fixture
def images(random) -> torch.Tensor:
    """The corner is dark in all of them, so that they say nothing about the trap."""
    bright = torch.rand(128, 1, 1, 2, generator=random).repeat_interleave(4, 3)
    images = bright * torch.rand(128, 1, 8, 8, generator=random)
    images[..., 7, 6:] = 0
    return images


def test_the_student_forgets_a_trigger_that_the_images_do_not_show(linear, runtime, images):
    teacher = trap(linear, Teacher)
    pool = Pool()
    pool.add(images, teacher.predict(images), Split.everything(images))
    triggered = images.clone()
    triggered[..., 7, 6:] = 1
    answers, fell = teacher.predict(images).argmax(1), {}
    for name, defense in {"none": Defense(), "dhbe": DHBE(SHAPE, weight=1.0, size=3, latent=8, width=8)}.items():
        model = trap(linear, Classifier)  # starts as the teacher, as in the public code
        recipe = Recipe(optimizer="adam", lr=0.1, batch_size=64, schedule="constant", weight_decay=0.0)
        Trainer(model, Student(model.net, recipe, L1(), epochs=1), defense, runtime, 0, 400).train(pool, 400)
        assert (model.predict(images).argmax(1) == answers).float().mean() > 0.95
        fell[name] = (model.predict(triggered)[answers == 1].argmax(1) == 0).float().mean().item()
    assert fell["none"] == 1 and fell["dhbe"] < 0.2


def test_the_same_seed_gives_the_same_student(linear, runtime, images):
    pool = Pool()
    pool.add(images, trap(linear, Teacher).predict(images), Split.everything(images))

    def trained(seed: int, weight: float) -> torch.Tensor:
        model = trap(linear, Classifier)
        defense = DHBE(SHAPE, weight, size=3, latent=8, width=4)
        Trainer(model, Student(model.net, Recipe(), L1(), epochs=1), defense, runtime, seed, 6).train(pool, 6)
        return model.net.head.weight.detach()

    assert torch.equal(trained(0, 0.1), trained(0, 0.1))
    assert not torch.equal(trained(0, 0.1), trained(1, 0.1))
    assert not torch.equal(trained(0, 0.1), trained(0, 0.0))


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
