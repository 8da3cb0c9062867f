from itertools import pairwise

import pytest
import torch

from dfkd.models import DCGAN, NLGenerator
from dfkd.priors import BatchNormEMA, Prior
from dfkd.synthesizers import NAYER


def make(runtime, shape=(1, 8, 8), classes=4, prior=None, seed=0, generator=None, **options) -> NAYER:
    torch.manual_seed(seed)
    prior = Prior({"bn_ema": BatchNormEMA(1.0)}) if prior is None else prior
    generator = generator or NLGenerator(shape, classes, embedding=12, noise=16, width=8)
    defaults = {"rounds": 60, "steps": 3, "batch_size": 10, "warm_up": 1}
    nayer = NAYER(generator, classes, prior, **(defaults | options))
    nayer.start(runtime, seed)
    return nayer


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16)])
def test_a_round_gives_a_batch_with_its_targets(runtime, pair, one_round, shape):
    nayer = make(runtime, shape)
    terms = {"one_hot", "bn_ema", "hit"}
    for number in range(2):
        made = one_round(nayer, *pair(shape), round=number)
        assert made.images.shape == (10, *shape) and made.images.dtype == torch.uint8
        assert made.columns["target"][:8].tolist() == [0, 1, 2, 3] * 2
        assert made.columns["target"][8] != made.columns["target"][9]
        assert set(made.metrics) == (terms | {"adversarial"} if number else terms)
    assert len(nayer.generator.noisy.weight) == 3  # of 10 rows, 4 each


def test_noisy_layers_are_drawn_anew_every_round_and_trained(runtime, pair):
    teacher, student = pair()
    nayer, drawn = make(runtime, renewal=None), []
    for number in range(2):
        stream = nayer.stream(number)
        nayer.begin(number, nayer.labels(stream), teacher, stream)
        drawn.append(nayer.generator.noisy.weight.detach().clone())
        nayer.synthesize(range(number, number + 1), teacher, student)
        assert not torch.equal(nayer.generator.noisy.weight, drawn[-1])
    assert not torch.equal(*drawn)


def test_the_generator_goes_on_between_renewals(runtime, pair):
    teacher, student = pair()
    nayer, fresh = make(runtime, renewal=2, lr=1e-6), []
    for number in range(4):
        nayer.synthesize(range(number, number + 1), teacher, student)
        fresh.append(nayer.generator.body.project.weight.detach().clone())
    moved = [(b - a).abs().max().item() > 1e-3 for a, b in pairwise(fresh)]
    assert moved == [False, True, False]


def test_the_warm_up_has_a_renewal_of_its_own(runtime, pair):
    teacher, student = pair()
    nayer, fresh = make(runtime, warm_up=4, renewal=1, warm_up_renewal=3, lr=1e-6), []
    for number in range(6):
        nayer.synthesize(range(number, number + 1), teacher, student)
        fresh.append(nayer.generator.body.project.weight.detach().clone())
    moved = [(b - a).abs().max().item() > 1e-3 for a, b in pairwise(fresh)]
    assert moved == [False, False, True, True, True]
    with pytest.raises(ValueError, match="warm_up_renewal must be at least 1"):
        make(runtime, warm_up_renewal=0)


def test_the_loss_falls(runtime, teacher, student):
    short, long = (
        make(runtime, classes=10, steps=steps, batch_size=40, lr=1e-2).synthesize(range(1), teacher, student).metrics
        for steps in (1, 60)
    )
    for term in ("one_hot", "bn_ema"):
        assert long[term] < 0.8 * short[term], term
    assert long["hit"] > short["hit"] + 0.2


def test_without_batch_norm_the_prior_is_refused_and_the_rest_runs(runtime, pair, one_round):
    teacher, student = pair(norm="none")
    with pytest.raises(ValueError, match=r"no BatchNorm.*~prior\.bn_ema"):
        make(runtime).check(teacher.net)
    plain = make(runtime, prior=Prior({}))
    plain.check(teacher.net)
    assert one_round(plain, teacher, student, round=1).images.shape == (10, 1, 8, 8)


def test_the_same_seed_gives_the_same_images_and_embeddings(runtime, pair):
    made = [make(runtime, seed=s) for s in (0, 0, 1)]
    first, second, other = (nayer.synthesize(range(1), *pair()).images for nayer in made)
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(made[0].embeddings, made[1].embeddings)
    assert not torch.allclose(made[0].embeddings, made[2].embeddings)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"renewal": 0}, "renewal.*got 0"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"betas": (2.0, 0.9)}, r"betas=\[2.0, 0.9\]"),
        ({"generator": DCGAN((1, 8, 8), 8, 8)}, "noisy layer, not DCGAN; take generator@synthesizer.generator=nayer"),
        ({"embeddings": "file", "path": "nowhere.safetensors"}, "there is no .*nowhere.safetensors"),
        ({"embeddings": "nowhere.safetensors"}, r"orthogonal, open_clip or file \(with path=FILE\), got 'nowhere"),
        ({"path": "e.safetensors"}, "go together, got embeddings=orthogonal and path=e.safetensors"),
        ({"embeddings": "file"}, "go together, got embeddings=file and path=None"),
    ],
)
def test_impossible_options_are_refused(runtime, wrong, said):
    with pytest.raises(ValueError, match=said):
        make(runtime, **wrong)
