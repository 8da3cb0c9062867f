"""What holds for every method that trains a generator, with every generator."""

import math
from dataclasses import replace

import pytest
import torch
from runner import make_cell
from shipped import config
from small_generators import GENERATORS

from dfkd.distill import L1
from dfkd.models import Classifier, Teacher, mlp
from dfkd.priors import Activation, Balance, BatchNormPrior, Prior
from dfkd.stages.prepare import prepare
from dfkd.synthesizers import DAFL, DFAD, DFQ, MAD, ZSKT

METHODS = {
    DAFL: lambda: {"balance": Balance(20.0), "activation": Activation(1e-3)},
    DFQ: lambda: {"bn": BatchNormPrior(), "balance": Balance(20.0)},
    DFAD: dict,
    MAD: lambda: {"bn": BatchNormPrior(), "balance": Balance(20.0)},
    ZSKT: dict,
}
EVERY = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


@pytest.mark.parametrize(("channels", "norm"), [(1, "batch"), (3, "batch"), (3, "none")])
@pytest.mark.parametrize("generator", GENERATORS)
@EVERY
def test_a_round_trains_the_generator_and_nothing_else(method, generator, channels, norm, build, untrained, unchanged):
    teacher, student = untrained(channels, norm)
    terms = METHODS[method]()
    if norm == "none":
        terms.pop("bn", None)
    made = build(method, Prior(terms), generator, channels, images=5)
    made.check(teacher.net)
    checks = [unchanged(teacher), unchanged(student)]
    before = {name: p.detach().clone() for name, p in made.generator.named_parameters()}
    batch = made.synthesize(range(1), teacher, student.train())
    for check in checks:
        check()
    assert student.training and not teacher.training
    assert batch.images.shape == (5, channels, 8, 8) and not batch.images.requires_grad
    assert 0 <= batch.images.min() < batch.images.max() <= 1
    assert set(batch.metrics) == set(made.weights) | set(terms)
    # an attention that starts at 0 gets its first gradients there
    behind = [name for name in before if name.startswith("attention.") and name != "attention.gamma"]
    still = [name for name, p in made.generator.named_parameters() if torch.equal(p, before[name])]
    assert set(still) <= set(behind)


@EVERY
def test_the_student_is_looked_at_in_evaluation_mode_or_not_at_all(method, build, teacher, student):
    modes = []
    student.register_forward_hook(lambda module, arguments, out: modes.append(module.training))
    build(method, steps=2).synthesize(range(1), teacher, student.train())
    assert modes == ([] if method is DAFL else [False, False])


@EVERY
def test_steering_scales_the_adversarial_term(method, build, teacher, student, spy):
    steers = (None, spy(0.5), zero := spy(0.0))
    whole, half, none = (build(method).synthesize(range(1), teacher, student, steer).metrics for steer in steers)
    if method is DAFL:
        assert zero.seen == [] and torch.equal(whole["one_hot"], none["one_hot"])
        return
    ((images, logits),) = zero.seen
    assert images.shape == (16, 1, 8, 8) and not images.requires_grad and not logits.requires_grad
    assert torch.allclose(logits, teacher.predict(images), atol=1e-5)
    assert none["adversarial"].item() == 0 > whole["adversarial"].item()
    assert half["adversarial"].item() == pytest.approx(0.5 * whole["adversarial"].item(), rel=1e-5)


@EVERY
def test_the_same_stream_gives_the_same_images(method, build, teacher, student):
    first, second = (build(method, generator="resnet_cbn") for _ in range(2))
    a, b = (made.synthesize(range(1), teacher, student).images for made in (first, second))
    assert torch.equal(a, b)
    assert not torch.equal(a, first.synthesize(range(1, 2), teacher, student).images)


@EVERY
def test_impossible_numbers_are_refused(method, build, teacher):
    weights = dict.fromkeys(build(method).weights, 0.0)
    with pytest.raises(ValueError, match="nothing to minimise"):
        build(method, **weights).check(teacher.net)
    build(method, Prior({"balance": Balance()}), **weights).check(teacher.net)
    for name in weights:
        with pytest.raises(ValueError, match=f"{name}.*-1"):
            build(method, **{name: -1.0})
    for name, value in (("steps", 0), ("batch_size", 1), ("images", 0), ("rounds", 0), ("lr", 0.0)):
        with pytest.raises(ValueError, match=f"{name}.*{value}"):
            build(method, **{name: value})
    with pytest.raises(ValueError, match="betas"):
        build(method, betas=(0.5, 1.0))


def test_a_conditional_generator_is_asked_for_all_classes_alike(build):
    made = build(DFQ, generator="resnet_cbn")
    counts = made._labels(20_000, made.stream(0)).bincount(minlength=10)
    assert len(counts) == 10
    assert ((counts - 2000).abs() < 5 * 1800**0.5).all()  # five standard deviations
    assert build(DFQ)._labels(5, made.stream(0)) is None


@pytest.mark.parametrize("method", [DAFL, DFQ, MAD])
def test_one_hot_wants_the_asked_class_of_a_conditional_generator(method, build, teacher, student):
    options = {} if method is DAFL else {"adversarial": 0.0}
    for generator in ("resnet_cbn", "dcgan"):
        made = build(method, generator=generator, **options)
        stream = made.stream(0)
        z, y = made._latent(16, stream), made._labels(16, stream)
        with torch.no_grad():
            t = teacher(made._generate(made.generator.train(), z, y))
        y = t.argmax(1) if y is None else y
        expected = -sum(t[i].log_softmax(0)[y[i]].item() for i in range(16)) / 16
        made = build(method, generator=generator, **options)
        assert made.synthesize(range(1), teacher, student).metrics["one_hot"].item() == pytest.approx(
            expected, rel=1e-4
        )


def test_a_conditional_generator_learns_to_make_what_it_is_asked_for(build, teacher, student):
    made = build(DAFL, generator="resnet_cbn", batch_size=64)
    for t in range(40):
        made.synthesize(range(t, t + 1), teacher, student)
    y = torch.arange(10).repeat(20)
    z = made._latent(200, made.stream(0))
    with torch.no_grad():
        hit = teacher(made.generator.eval()(z, y)).argmax(1) == y
    assert hit.float().mean() > 0.8  # 0.1 by chance


@pytest.mark.parametrize("generator", GENERATORS)
def test_under_bfloat16_the_terms_stay_near_and_the_images_float32(generator, build, teacher, student):
    terms = METHODS[DFQ]() | METHODS[DAFL]()
    exact = build(DFQ, Prior(terms), generator).synthesize(range(1), teacher, student).metrics
    made = build(DFQ, Prior(terms), generator)
    made.runtime = replace(made.runtime, precision="bfloat16")
    batch = made.synthesize(range(1), teacher, student)
    assert batch.images.dtype == torch.float32
    assert batch.metrics.keys() == exact.keys()
    for name, value in batch.metrics.items():
        assert value.dtype == torch.float32, name
        assert value.item() == pytest.approx(exact[name].item(), rel=0.1), name


@pytest.mark.parametrize(
    ("name", "generator"),
    [
        ("dafl", None),
        ("dafl_cifar100", "resnet_cbn"),
        ("dfad", None),
        ("mad", None),
        ("mad", "resnet_cbn"),
        ("zskt", None),
    ],
)
def test_the_option_makes_images_for_the_student(name, generator, runtime, tmp_path):
    chosen = (f"generator@synthesizer.generator={generator}", "synthesizer.generator.width=8") if generator else ()
    sizes = ("synthesizer.batch_size=8", "synthesizer.images=5")
    parts = prepare(make_cell(tmp_path, f"synthesizer={name}", *chosen, *sizes))
    shape = parts.scenario.id.shape
    teacher = Teacher(parts.teacher.network, shape, 10, [0.3], [0.4])
    student = Classifier(parts.student.network, shape, 10, [0.3], [0.4])
    parts.synthesizer.start(runtime, 0)
    images = parts.synthesizer.synthesize(range(1), teacher, student).images
    loss = parts.student.loss(student(images), teacher(images))
    assert images.shape == (5, *shape) and loss.shape == (5,) and loss.min() >= 0
    assert isinstance(parts.student.loss, L1) == (name == "dfad")
    assert parts.student.capacity == (5 if name == "mad" else None)


@pytest.mark.parametrize(
    ("name", "one_hot", "balance_in_log10", "activation", "latent", "batch"),
    [
        ("dafl_mnist", 1.0, 5, 0.1, 100, 512),
        ("dafl_cifar10", 0.05, 5, 0.01, 1000, 1024),
        ("dafl_cifar100", 0.5, 20, 0.1, 1000, 1024),
    ],
)
def test_dafl_has_its_official_codes_weights(name, one_hot, balance_in_log10, activation, latent, batch):
    chosen = config(f"synthesizer={name}")
    synthesizer, prior = chosen["synthesizer"], chosen["prior"]
    assert (float(synthesizer["one_hot"]), synthesizer["generator"]["latent"]) == (one_hot, latent)
    assert synthesizer["batch_size"] == synthesizer["images"] == batch
    assert float(prior["balance"]["weight"]) == pytest.approx(balance_in_log10 / math.log(10), rel=1e-4)
    assert float(prior["activation"]["weight"]) == activation


def test_the_features_of_a_teacher_without_a_linear_head_are_missed_before_any_work(build):
    net = mlp((1, 8, 8), 10)
    net.head = torch.nn.Identity()
    with pytest.raises(ValueError, match=r"prior 'activation'.*head.*Identity.*~prior\.activation"):
        build(DAFL, Prior({"activation": Activation()})).check(net)
