import copy
from itertools import pairwise

import pytest
import torch

from dfkd.models import DCGAN
from dfkd.priors import BatchNormEMA, Prior
from dfkd.synthesizers import Fast
from dfkd.synthesizers.fast import REPTILE
from dfkd.synthesizers.inversion import balanced_labels


def make(runtime, shape=(1, 8, 8), classes=4, prior=None, seed=0, **options) -> Fast:
    torch.manual_seed(seed)
    prior = Prior({"bn_ema": BatchNormEMA(1.0)}) if prior is None else prior
    defaults = {"rounds": 60, "steps": 3, "batch_size": 8, "warm_up": 1, "lr": 5e-3}
    fast = Fast(DCGAN(shape, latent=8, width=8), classes, prior, **(defaults | options))
    fast.start(runtime, seed)
    return fast


@pytest.mark.parametrize("meta", ["fomaml", "reptile"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16)])
def test_a_round_gives_a_batch_with_its_targets(runtime, pair, one_round, shape, meta):
    fast = make(runtime, shape, meta=meta)
    before = [p.detach().clone() for p in fast.generator.parameters()]
    terms = {"one_hot", "bn_ema", "hit"}
    for number in range(2):
        made = one_round(fast, *pair(shape), round=number)
        assert made.images.shape == (8, *shape) and made.images.dtype == torch.uint8
        assert made.columns["target"].bincount().tolist() == [2, 2, 2, 2]
        assert set(made.metrics) == (terms | {"adversarial"} if number else terms)
    for parameter, old in zip(fast.generator.parameters(), before, strict=True):
        assert not torch.equal(parameter, old)


@pytest.mark.parametrize("meta", ["fomaml", "reptile"])
def test_the_meta_step_is_that_of_an_independent_loop(runtime, pair, meta):
    """The same round written out with backward(), plain images and no base class."""
    teacher, student = pair()
    fast = make(runtime, meta=meta, prior=Prior({}), warm_up=1, lr=0.02, meta_lr=0.05, latent_lr=0.03)
    theta = copy.deepcopy(fast.generator)
    fast.synthesize(range(1), teacher, student)

    stream = fast.stream(0)
    labels = balanced_labels(8, 4, stream)
    z = torch.randn(8, 8, generator=stream).requires_grad_()
    clone = copy.deepcopy(theta)
    inner = torch.optim.Adam([{"params": clone.parameters()}, {"params": [z], "lr": 0.03}], lr=0.02, betas=(0.5, 0.999))
    sums = [torch.zeros_like(p) for p in theta.parameters()]
    for _ in range(3):
        inner.zero_grad()
        (0.4 * torch.nn.functional.cross_entropy(teacher(clone(z)), labels)).backward()
        sums = [a + p.grad for a, p in zip(sums, clone.parameters(), strict=True)]
        inner.step()
    outer = torch.optim.Adam(theta.parameters(), lr=0.05, betas=(0.5, 0.999))
    for p, twin, gradient in zip(theta.parameters(), clone.parameters(), sums, strict=True):
        p.grad = gradient if meta == "fomaml" else REPTILE * (p - twin).detach()
    outer.step()
    for p, expected in zip(fast.generator.parameters(), theta.parameters(), strict=True):
        assert torch.allclose(p, expected, atol=1e-5)


def test_the_generator_learns_where_to_start_from(runtime, teacher, student):
    fast = make(runtime, classes=10, batch_size=30, one_hot=1.0, adversarial=0.0, reset=None)
    losses = []
    for number in range(50):
        metrics = fast.synthesize(range(number, number + 1), teacher, student).metrics
        losses.append((metrics["one_hot"] + metrics["bn_ema"]).item())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_the_first_layers_are_reset_once(runtime, pair):
    fast = make(runtime, warm_up=1, reset=2, lr=1e-6, meta_lr=1e-6)
    weights = [fast.generator.project.weight.detach().clone()]
    last = fast.generator.paint[-2].weight.detach().clone()
    for number in range(5):
        fast.synthesize(range(number, number + 1), *pair())
        weights.append(fast.generator.project.weight.detach().clone())
    moved = [(b - a).abs().max().item() > 1e-3 for a, b in pairwise(weights)]
    assert moved == [False, False, False, True, False]
    assert torch.allclose(fast.generator.paint[-2].weight, last, atol=1e-4)


def test_the_meta_learning_rate_follows_the_steps(runtime):
    assert make(runtime, steps=5, lr=3e-3).meta_lr == pytest.approx(0.015)
    assert make(runtime, meta_lr=0.1).meta_lr == 0.1


def test_without_batch_norm_the_prior_is_refused_and_the_rest_runs(runtime, pair, one_round):
    teacher, student = pair(norm="none")
    with pytest.raises(ValueError, match=r"no BatchNorm.*~prior\.bn_ema"):
        make(runtime).check(teacher.net)
    plain = make(runtime, prior=Prior({}))
    plain.check(teacher.net)
    assert one_round(plain, teacher, student, round=1).images.shape == (8, 1, 8, 8)


def test_a_warm_up_without_anything_to_minimise_is_refused(runtime, pair):
    with pytest.raises(ValueError, match="first 1 rounds"):
        make(runtime, prior=Prior({}), one_hot=0.0).check(pair()[0].net)


def test_the_same_seed_gives_the_same_images(runtime, pair):
    first, second, other = (make(runtime, seed=s).synthesize(range(1), *pair()).images for s in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"meta": "maml"}, "fomaml or reptile, got 'maml'"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"latent_lr": -1.0}, "latent_lr must be positive, got -1.0"),
        ({"meta_lr": 0.0}, "meta_lr must be positive"),
        ({"reset": -1}, "reset must not be negative, got -1"),
        ({"betas": (0.5, 1.5)}, r"betas.*1\.5"),
    ],
)
def test_impossible_numbers_are_refused(runtime, wrong, said):
    with pytest.raises(ValueError, match=said):
        make(runtime, **wrong)


def test_views_are_what_teacher_and_student_see_and_the_pool_gets_the_images(runtime, pair):
    teacher, student = pair((3, 16, 16))
    fast, seen = make(runtime, (3, 16, 16), views="black_crop_flip", warm_up=0, steps=1), {"teacher": [], "student": []}
    for name, model in (("teacher", teacher), ("student", student)):
        model.net.register_forward_pre_hook(lambda _, arguments, name=name: seen[name].append(arguments[0]))
    made = fast.synthesize(range(1), teacher, student)
    (shown,) = seen["teacher"]
    assert torch.equal(shown, seen["student"][0])
    views = teacher.denormalize(shown)
    black = (views.abs() < 1e-6).all(1)  # of a sigmoid's images, no pixel is black
    assert 0 < black.float().mean() < 0.5 and not (made.images == 0).all(1).any()


def test_unknown_views_are_refused(runtime):
    with pytest.raises(ValueError, match=r"views must be one of none, .*'mirror'"):
        make(runtime, views="mirror")


def test_the_public_initialisation_of_the_first_layers(runtime, pair):
    teacher, student = pair()
    fast = make(runtime, init_std=0.02, reset=0, warm_up=1, lr=1e-9)
    for number in range(2):
        fast.synthesize(range(number, number + 1), teacher, student)
    linear, norm = fast.generator.project, fast.generator.paint[0]
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.2) and linear.bias.abs().max() < 1e-6
    assert norm.weight.abs().max() < 0.1 and norm.bias.abs().max() < 1e-6
