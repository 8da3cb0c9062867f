"""The radius that fits a teacher, and the split by it."""

import pytest
import torch

from dfkd.attacks import PGD
from dfkd.defenses import FlipRadius, PGDFlip
from dfkd.defenses.auto_radius import AutoRadius, ordinary_radius
from dfkd.models import Teacher

CLASSES = 5


class Slopes(torch.nn.Module):
    """Image (1, CLASSES, 1): logit c is slope[c] * pixel c. An image with one bright pixel has that class, and the same
    margin in every class; a flat slope takes a large step to change it."""

    def __init__(self, slopes: list[float]):
        super().__init__()
        self.slopes = torch.nn.Parameter(torch.tensor(slopes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) * self.slopes


def teacher() -> Teacher:
    return Teacher(Slopes([1.0] * CLASSES), (1, CLASSES, 1), CLASSES, [0.0], [1.0])


def image(label: int, height: float) -> torch.Tensor:
    """An image of a class that flips at the radius height / 2."""
    x = torch.full((1, CLASSES, 1), 0.3)
    x[0, label] += height
    return x


def batch(trap: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """20 images a class with flip radii from 0.005 to 0.1; class 2 is at `trap` instead, if given."""
    images = [image(c, 0.01 * (k + 1)) for c in range(CLASSES) for k in range(20)]
    labels = torch.arange(CLASSES).repeat_interleave(20)
    if trap is not None:
        images[40:55] = [image(2, 2 * trap)] * 15
    return torch.stack(images), labels


def test_the_radius_is_the_quantile_of_an_ordinary_class():
    by_class = [torch.linspace(1, 2, 11), torch.linspace(2, 3, 11), torch.linspace(0, 10, 11), torch.tensor([99.0])]
    assert ordinary_radius(by_class, 0.9) == pytest.approx(2.9)  # the median of 1.9, 2.9 and 9.0; one image is too few
    assert ordinary_radius([torch.tensor([1.0]), torch.tensor([]), torch.tensor([3.0])], 0.5) == pytest.approx(2.0)


@pytest.mark.parametrize("trap", [None, 0.3])
def test_a_class_that_holds_is_suspicious_and_does_not_move_the_radius(trap, random):
    auto, model = AutoRadius(quantile=0.9), teacher()
    images, labels = batch(trap)
    logits = model(images)
    assert torch.equal(logits.argmax(1), labels)
    radii = auto.observe(PGD(1.0, steps=5, random_start=False, box=None), model, images, logits, random)
    assert auto.eps == pytest.approx(0.0905, rel=0.15)
    assert auto.suspicious.tolist() == [False, False, trap is not None, False, False]
    assert radii.shape == (100,) and radii.min() > 0


def test_wrong_estimates_are_corrected_by_the_attack(random):
    """Where the network bends, the first-order radius is wrong by a factor that the attack tells."""

    class Bent(Slopes):
        def forward(self, x):
            return torch.expm1(4 * x.flatten(1))

    model = Teacher(Bent([1.0] * CLASSES), (1, CLASSES, 1), CLASSES, [0.0], [1.0])
    images = torch.stack([image(c, 0.4) for c in range(CLASSES)] * 8)
    auto = AutoRadius()
    radii = auto.observe(PGD(1.0, steps=5, random_start=False, box=None), model, images, model(images), random)
    assert radii.median().item() == pytest.approx(0.2, rel=0.15)  # the two pixels meet in the middle
    assert abs(auto.ratios.median().item() - 1) > 0.2


def test_old_images_are_forgotten(random):
    auto, model = AutoRadius(memory=100), teacher()
    for trap in (0.3, None):
        images, _ = batch(trap)
        auto.observe(PGD(1.0, steps=3, box=None), model, images, model(images), random)
    assert not auto.suspicious.any() and len(auto.estimates) == 100


def criterion(**options) -> FlipRadius:
    return FlipRadius(box=None, **options)


def test_only_images_that_hold_in_a_suspicious_class_are_robust(random):
    model, (images, labels) = teacher(), batch(0.3)
    split = criterion().split(model, images, model(images), random)
    robust = ~split.fragile
    assert robust[40:55].all() and not robust[labels != 2].any() and robust.sum() <= 17
    everywhere = criterion(suspicious_only=False).split(model, images, model(images), random)
    assert (~everywhere.fragile)[labels != 2].any()


def test_without_a_trap_everything_is_fragile_and_it_says_so(random):
    model, (images, _) = teacher(), batch()
    by_radius = criterion()
    assert by_radius.warnings() == []
    assert by_radius.split(model, images, model(images), random).fragile.all()
    assert "no trap is in sight" in by_radius.warnings()[0]


def test_a_fixed_radius_is_used_as_it_is(random):
    model, (images, _) = teacher(), batch(0.3)
    by_radius = criterion(eps=0.2, suspicious_only=False)
    split = by_radius.split(model, images, model(images), random)
    assert by_radius.radius == 0.2 and torch.equal(split.fragile, split.score < 0.2)


def test_the_guess_needs_no_teacher_and_agrees(random):
    model, (images, _) = teacher(), batch(0.3)
    by_radius = criterion()
    assert by_radius.guess(model, images, model(images), random).all()  # before it has seen anything
    fragile = by_radius.split(model, images, model(images), random).fragile
    logits, before = model(images), model.evals.total()
    guess = by_radius.guess(model, images, logits, random)
    assert model.evals.total() == before + 0 and (guess == fragile).float().mean() > 0.95


def test_images_from_elsewhere_are_judged_without_a_change(random):
    model, (images, _) = teacher(), batch(0.3)
    by_radius = criterion()
    assert not by_radius.is_robust(model, images, model(images), random).any()
    by_radius.split(model, images, model(images), random)
    before = by_radius.auto.estimates.clone()
    far = torch.stack([image(0, 0.6), image(0, 0.02)])
    assert by_radius.is_robust(model, far, model(far), random).tolist() == [True, False]
    assert torch.equal(by_radius.auto.estimates, before)


@pytest.mark.parametrize(
    "options",
    [{"eps": "wide"}, {"eps": -1.0}, {"quantile": 1.0}, {"most": 0.0}, {"memory": 0}, {"checks": 2}, {"steps": 0}],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        criterion(**options)


def test_atescs_attack_takes_the_radius_too(random):
    model, (images, _) = teacher(), batch(0.3)
    flip = PGDFlip(eps="auto", steps=5, box=None)
    split = flip.split(model, images, model(images), random)
    assert flip.attack.eps == flip.auto.eps == pytest.approx(0.0905, rel=0.15)
    assert not split.fragile[40:55].any() and split.fragile.sum() > 60


@pytest.mark.parametrize("options, said", [({"eps": "wide"}, "auto"), ({"eps": "auto", "step": 0.1}, "step")])
def test_an_attack_with_an_impossible_radius_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        PGDFlip(steps=3, **options)
