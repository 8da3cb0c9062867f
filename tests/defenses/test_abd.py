import pytest
import torch

from dfkd.defenses import ABD, Defense
from dfkd.defenses.vaccine import ShufflingVaccine
from dfkd.distill import KL
from dfkd.errors import NonFiniteLoss
from dfkd.models import DCGAN, Classifier, cnn_bn, mlp
from dfkd.pool import Pool, Split
from dfkd.priors import Prior
from dfkd.synthesizers import DFQ, NoiseImages


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pool_of(teacher, images) -> Pool:
    pool = Pool()
    pool.add(images, teacher.predict(images), Split.everything(images))
    return pool


@pytest.fixture
def pool(teacher, random) -> Pool:
    return pool_of(teacher, torch.rand(40, 1, 8, 8, generator=random))


@pytest.fixture
def student() -> Classifier:
    torch.manual_seed(5)
    return Classifier(cnn_bn((1, 8, 8), 10, widths=(4, 8)), (1, 8, 8), 10, [0.3], [0.4])


@pytest.fixture
def dfq() -> DFQ:
    return DFQ(DCGAN((1, 8, 8), latent=8, width=8), Prior({}), 3, steps=1, batch_size=8, images=8)


def test_it_distils_everything_and_its_vaccine_is_the_generators_term(teacher, random):
    s, t = torch.randn(2, 4, 10, generator=random)
    divergence = torch.rand(4, generator=random)
    assert ABD().loss(s, t, divergence, torch.zeros(4, dtype=torch.bool))["kd"] == divergence.mean()
    term = ABD(vaccine=0.3, copies=2).synthesis_term(teacher, seeded())
    assert isinstance(term, ShufflingVaccine) and term.weight == 0.3 and len(term.copies) == 2
    assert ABD(vaccine=0.0).synthesis_term(teacher, seeded()) is None


@pytest.mark.parametrize("training", [True, False])
def test_finishing_trains_parameters_and_nothing_else(teacher, student, pool, unchanged, training):
    check, student = unchanged(teacher), student.train(training)
    buffers = {name: value.clone() for name, value in student.named_buffers()}
    before = {name: value.detach().clone() for name, value in student.named_parameters()}
    found = ABD(steps=2, batch_size=16, inner_steps=2).finish(student, teacher, pool, KL(), seeded())
    check()
    assert set(found) == {"retrospection/kd", "retrospection/unlearned", "retrospection/norm"}
    assert student.training == training
    assert all(torch.equal(value, buffers[name]) for name, value in student.named_buffers())
    assert all(not torch.equal(value, before[name]) for name, value in student.named_parameters())
    assert all(p.grad is None for p in student.parameters())


def test_without_steps_the_student_is_finished_already(teacher, student, pool, unchanged):
    check = unchanged(student)
    assert ABD(steps=0).finish(student, teacher, pool, KL(), seeded()) == {}
    assert Defense().finish(student, teacher, pool, KL(), seeded()) == {}
    check()


def test_the_student_unlearns_a_pixel_that_only_the_perturbation_uses(linear, random):
    weights = [[1.0, 4.0], [-1.0, -4.0]]
    teacher = linear(weights)
    images = torch.cat([torch.rand(32, 1, 1, 1, generator=random), torch.zeros(32, 1, 1, 1)], dim=2)
    pool, shares = pool_of(teacher, images), {}
    for weight in (0.0, 1.0):
        student = linear(weights, kind=Classifier)
        defense = ABD(steps=20, lr=0.02, batch_size=32, weight=weight, share=1.0)
        defense.finish(student, teacher, pool, KL(), seeded())
        shares[weight] = student.net.head.weight[0, 1].item()
        assert student.net.head.weight[0, 0].item() > 0.5  # what the images do use is still distilled
    assert shares[0.0] == pytest.approx(4.0)  # the images alone say nothing about that pixel
    assert shares[1.0] < 3.9


def test_the_same_generator_gives_the_same_student(teacher, pool):
    def finished(seed: int) -> torch.Tensor:
        torch.manual_seed(5)
        model = Classifier(cnn_bn((1, 8, 8), 10, widths=(4, 8)), (1, 8, 8), 10, [0.3], [0.4])
        ABD(steps=1, batch_size=8, inner_steps=1).finish(model, teacher, pool, KL(), seeded(seed))
        return model.net.head.weight.detach()

    assert torch.equal(finished(0), finished(0)) and not torch.equal(finished(0), finished(1))


def test_a_loss_that_is_not_finite_is_named(teacher, student, pool):
    pool.logits[:] = float("nan")
    with pytest.raises(NonFiniteLoss, match="retrospection/kd"):
        ABD(steps=1, batch_size=8).finish(student, teacher, pool, KL(), seeded())


def test_what_it_cannot_work_with_is_said_before_any_work(dfq):
    conv, dense, noise = cnn_bn((1, 8, 8), 3), mlp((1, 8, 8), 3), NoiseImages((1, 8, 8), 1, 8)
    ABD().check(conv, dfq)
    ABD(vaccine=0).check(dense, noise)
    with pytest.raises(ValueError, match=r"no convolution with more than one.*defense\.vaccine=0"):
        ABD().check(dense, dfq)
    with pytest.raises(ValueError, match=r"term of a generator's loss.*synthesizer=dfq"):
        ABD().check(conv, noise)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vaccine", -0.1),
        ("copies", 0),
        ("layers", 0),
        ("steps", -1),
        ("lr", 0.0),
        ("batch_size", 0),
        ("weight", -1.0),
        ("share", 0.0),
        ("inner_steps", 0),
        ("inner_lr", 0.0),
        ("fixed_point", 0),
        ("fixed_point_step", 0.0),
        ("decay", -1.0),
    ],
)
def test_impossible_numbers_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name} .*{value}"):
        ABD(**{name: value})
