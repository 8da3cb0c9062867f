import pytest
import torch

from dfkd.models import DCGAN, MLPGenerator
from dfkd.priors import Balance, BatchNormPrior, Prior
from dfkd.synthesizers import CAKEGenerator
from dfkd.synthesizers.cake_generator import repel_term


def test_the_repel_term_by_hand(random):
    first, second = torch.rand(2, 3, 2, 1, 4, 4, generator=random, dtype=torch.float64)
    expected = 0.0
    for b in range(3):
        for g in range(2):
            pixels = zip(first[b, g].flatten().tolist(), second[b, g].flatten().tolist(), strict=True)
            expected += 1 / (sum((x - y) ** 2 for x, y in pixels) / 16) / 3
    assert repel_term(first, second).item() == pytest.approx(expected, rel=1e-5)


def test_images_that_are_the_same_are_pushed_apart_by_a_finite_force():
    images = torch.rand(2, 2, 1, 4, 4)
    other = (images + 1e-3).requires_grad_()
    repel_term(images, other).backward()
    assert (other.grad < 0).all()  # a step against the gradient moves them further
    assert repel_term(images, images).isfinite()


def make(runtime, shape=(1, 8, 8), classes=4, prior=None, seed=0, **options) -> CAKEGenerator:
    torch.manual_seed(seed)
    defaults = {"rounds": 3, "training_steps": 3, "batch_size": 16, "images": 12, "box": (0.0, 1.0)}
    cake = CAKEGenerator(DCGAN(shape, latent=18, width=8), classes, prior or Prior({}), **(defaults | options))
    cake.start(runtime, seed)
    return cake


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16)])
def test_a_round_gives_images_with_their_classes(runtime, pair, one_round, shape, norm):
    teacher, _ = pair(shape, norm)
    cake = make(runtime, shape)
    cake.check(teacher.net)
    before = [p.detach().clone() for p in cake.generator.parameters()]
    first, second = (one_round(cake, teacher, round=number) for number in range(2))
    assert first.images.shape == (12, *shape) and first.images.dtype == torch.uint8
    assert set(first.columns) == {"target"} and first.columns["target"].max() < 4
    assert set(first.metrics) == {"class", "contrast", "repel"} and second.metrics == {}
    assert not torch.equal(first.images, second.images)
    for parameter, old in zip(cake.generator.parameters(), before, strict=True):
        assert not torch.equal(parameter, old)


def test_the_generator_is_trained_once_and_a_start_forgets_it(runtime, pair):
    teacher, _ = pair()
    cake = make(runtime, prior=Prior({"balance": Balance()}))
    assert "balance" in cake.synthesize(range(1), teacher).metrics
    spent = teacher.evals.total()
    assert spent == 3 * 16
    cake.synthesize(range(1, 2), teacher)
    assert teacher.evals.total() == spent
    cake.start(runtime, 1)
    cake.synthesize(range(1), teacher)
    assert teacher.evals.total() == 2 * spent


def test_a_row_shares_its_latents_and_its_classes(runtime, pair):
    teacher, _ = pair()
    cake, seen = make(runtime, training_steps=1), []
    cake.generator.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    cake.synthesize(range(1), teacher)
    rows = seen[0].view(2, 4, 2, 18)  # z1 or z2, row, class, [z, one-hot]
    z, labels = rows[..., :14], rows[..., 14:].argmax(-1)
    assert torch.equal(z[:, :, 0], z[:, :, 1])
    assert not torch.isclose(z[0], z[1]).any()
    assert (labels[..., 0] != labels[..., 1]).all() and torch.equal(labels[0], labels[1])


def test_the_loss_falls_and_the_classes_are_hit(runtime, teacher):
    short, long = (
        make(runtime, classes=10, training_steps=steps, batch_size=64, images=100, lr=5e-3).synthesize(
            range(1), teacher
        )
        for steps in (1, 150)
    )
    assert long.metrics["class"] < 0.6 * short.metrics["class"]
    hit = teacher.predict(long.images / 255).argmax(1) == long.columns["target"]
    assert hit.float().mean() > 0.6


def test_repelling_makes_a_class_more_various(runtime, teacher):
    spread = []
    for weight in (0.0, 0.1):
        cake = make(runtime, classes=10, training_steps=80, batch_size=32, images=200, lr=5e-3, repel_weight=weight)
        made = cake.synthesize(range(1), teacher)
        images = made.images / 255
        spread.append(sum(images[made.columns["target"] == c].var(0).mean() for c in range(10)).item())
    assert spread[1] > 1.3 * spread[0]


def test_the_same_seed_gives_the_same_images(runtime, pair):
    first, second, other = (make(runtime, seed=s).synthesize(range(1), pair()[0]).images for s in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_points_have_no_range_and_stay_floats(runtime, linear):
    torch.manual_seed(0)
    generator = MLPGenerator((1, 2, 1), latent=12, hidden=16)
    sizes = {"rounds": 1, "training_steps": 60, "batch_size": 16, "images": 50}
    cake = CAKEGenerator(generator, 2, Prior({}), **sizes, lr=1e-2, repel_weight=0.0)
    cake.start(runtime, 0)
    batch = cake.synthesize(range(1), teacher := linear([[1.0, 0.0], [-1.0, 0.0]], shape=(1, 2, 1)))
    assert batch.images.shape == (50, 1, 2, 1) and batch.images.dtype == torch.float32
    assert (
        batch.images.min() < 0
        and (batch.images.max() if runtime.device.type == "cpu" else batch.images.abs().max()) > 1
    )
    assert (teacher.predict(batch.images).argmax(1) == batch.columns["target"]).float().mean() > 0.9


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"training_steps": 0}, "training_steps >= 1"),
        ({"batch_size": 6}, "divisible by 4.*6"),
        ({"images": 0}, "images >= 1"),
        ({"repel_weight": -1.0}, r"-1\.0 \(repel\)"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"classes": 1}, "1 classes"),
        ({"classes": 18}, "takes 18 numbers, 18 of which tell the class"),
    ],
)
def test_impossible_numbers_are_refused(runtime, wrong, said):
    with pytest.raises(ValueError, match=said):
        make(runtime, **wrong)


def test_what_the_teacher_cannot_serve_is_found_before_any_work(runtime, pair):
    with pytest.raises(ValueError, match="class_weight=0"):
        make(runtime, class_weight=0.0).check(pair()[0].net)
    with pytest.raises(ValueError, match="no BatchNorm"):
        make(runtime, prior=Prior({"bn": BatchNormPrior()})).check(pair(norm="none")[0].net)
