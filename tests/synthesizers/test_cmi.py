import math

import pytest
import torch

from dfkd.models import DCGAN, mlp, record_stages
from dfkd.priors import BatchNormPrior, Prior
from dfkd.synthesizers import CMI
from dfkd.synthesizers.cmi import Bank, contrastive_term


def slow_contrast(local, whole, temperature):
    """The cross-entropy of every row, by hand."""
    losses = []
    for i in range(len(local)):
        scores = [sum(a * b for a, b in zip(local[i], g, strict=True)) / temperature for g in whole]
        losses.append(-math.log(math.exp(scores[i]) / sum(math.exp(score) for score in scores)))
    return losses


@pytest.mark.parametrize("fresh", [3, 5])
def test_the_contrastive_term_is_the_mean_of_the_fresh_plus_that_of_the_stored(random, fresh):
    local, whole = torch.nn.functional.normalize(torch.randn(2, 5, 4, generator=random, dtype=torch.float64), dim=2)
    losses = slow_contrast(local.tolist(), whole.tolist(), 0.5)
    expected = sum(losses[:fresh]) / fresh + (sum(losses[fresh:]) / (5 - fresh) if fresh < 5 else 0.0)
    assert contrastive_term(local, whole, fresh, 0.5).item() == pytest.approx(expected, rel=1e-9)


def test_no_gradient_of_the_contrast_passes_the_global_views(random):
    local, whole = (torch.randn(4, 3, generator=random, requires_grad=True) for _ in range(2))
    contrastive_term(local, whole, 4, 0.1).backward()
    assert local.grad.abs().sum() > 0 and whole.grad is None


def test_the_bank_keeps_the_newest_and_draws_different_rows(random):
    bank = Bank(6)
    assert bank.draw(3, random) is None
    for start in range(0, 8, 2):
        bank.add(torch.arange(start, start + 2).float().view(-1, 1))
        # also at exactly its size, where the public code finds nothing
        assert len(bank.draw(99, random)) == min(start + 2, 6)
    assert bank.rows.flatten().tolist() == [2, 3, 4, 5, 6, 7]
    drawn = bank.draw(4, random).flatten().tolist()
    assert len(set(drawn)) == 4 and set(drawn) <= {2, 3, 4, 5, 6, 7}


def make(runtime, shape=(1, 8, 8), classes=4, prior=None, seed=0, **options) -> CMI:
    torch.manual_seed(seed)
    prior = Prior({"bn": BatchNormPrior(1.0)}) if prior is None else prior
    defaults = {"rounds": 3, "steps": 2, "batch_size": 8, "bank": 12, "negatives": 6}
    cmi = CMI(DCGAN(shape, latent=8, width=8), classes, prior, **(defaults | options))
    cmi.start(runtime, seed)
    return cmi


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16)])
def test_a_round_gives_a_batch_with_its_targets(runtime, pair, one_round, shape):
    cmi = make(runtime, shape)
    for number in range(2):
        made = one_round(cmi, *pair(shape), round=number)
        assert made.images.shape == (8, *shape) and made.images.dtype == torch.uint8
        assert made.columns["target"].bincount().tolist() == [2, 2, 2, 2]
        assert set(made.metrics) == {"one_hot", "adversarial", "contrast", "bn", "hit"}
    widths = 4 + 6  # of the teacher's two BatchNorm layers
    assert cmi.bank.rows.shape == (12, 2 * widths)


def test_the_bank_remembers_both_views_of_the_last_step(runtime, pair):
    teacher, student = pair()
    cmi = make(runtime, steps=1, crop=1.0)
    seen = []
    teacher.net.register_forward_pre_hook(lambda net, arguments: seen.append(arguments[0]))
    cmi.synthesize(range(1), teacher, student)
    body = teacher.net.body
    for inputs, rows in zip(reversed(seen), cmi.bank.rows.chunk(2, 1), strict=True):  # global first, then local
        first = body[0](inputs)
        second = body[4](body[3](body[2](body[1](first))))
        assert torch.allclose(rows, torch.cat([first.mean((2, 3)), second.mean((2, 3))], 1), atol=1e-5)


def test_features_of_the_stages_are_their_channel_means_but_for_the_last(runtime, pair, one_round):
    teacher, student = pair()
    cmi = make(runtime, steps=1, features="stages")
    cmi.check(teacher.net)
    with record_stages(teacher.net) as maps:
        one_round(cmi, teacher, student)
    local = torch.cat([stage.mean((2, 3)) for stage in maps[:-1]], 1)
    assert torch.allclose(cmi.bank.rows.chunk(2, 1)[0], local, atol=1e-5)
    assert cmi.head[0].in_features == local.shape[1]


def test_features_need_stages_only_for_the_contrast(runtime, pair):
    network = mlp((1, 8, 8), 4)
    with pytest.raises(ValueError, match="names no stages"):
        make(runtime, features="stages", prior=Prior({})).check(network)
    make(runtime, features="stages", contrast=0, prior=Prior({})).check(network)
    with pytest.raises(ValueError, match="features must be batch_norms or stages, got 'layers'"):
        make(runtime, features="layers")


def test_the_public_initialisation_of_a_batch(runtime, pair):
    teacher, _ = pair()
    cmi = make(runtime, init_std=0.02)
    stream = cmi.stream(0)
    cmi.begin(0, cmi.labels(stream), teacher, stream)
    assert cmi.generator.project.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert cmi.generator.paint[0].weight.mean().item() == pytest.approx(1, abs=0.03)
    assert cmi.generator.project.bias.abs().max() == 0
    with pytest.raises(ValueError, match="init_std must be positive"):
        make(runtime, init_std=0.0)


def test_every_batch_begins_anew_and_the_head_goes_on(runtime, pair):
    teacher, student = pair()
    cmi, weights, heads = make(runtime), [], []
    for number in range(2):
        stream = cmi.stream(number)
        cmi.begin(number, cmi.labels(stream), teacher, stream)
        weights.append(cmi.generator.project.weight.detach().clone())
        cmi.synthesize(range(number, number + 1), teacher, student)
        assert not torch.equal(cmi.generator.project.weight, weights[-1])
        heads.append((cmi.head, cmi.head[0].weight.detach().clone()))
    assert not torch.equal(*weights)
    assert heads[0][0] is heads[1][0] and not torch.equal(heads[0][1], heads[1][1])


def test_the_loss_falls(runtime, teacher, student):
    def after(steps: int) -> dict[str, float]:
        """Mean terms of three seeds: one of them hangs on rounding."""
        options = {"classes": 10, "steps": steps, "batch_size": 30, "lr": 1e-2, "adversarial": 0.0}
        made = [make(runtime, seed=seed, **options).synthesize(range(1), teacher, student).metrics for seed in range(3)]
        return {name: sum(metrics[name].item() for metrics in made) / 3 for name in made[0]}

    short, long = after(1), after(80)
    for term, share in (("one_hot", 0.8), ("bn", 0.8), ("contrast", 0.95)):
        assert long[term] < share * short[term], term


def test_the_contrast_makes_a_batch_differ_from_the_one_before(runtime, teacher, student):
    def likeness(contrast: float) -> float:
        options = {"classes": 10, "steps": 30, "batch_size": 30, "lr": 1e-2, "adversarial": 0.0}
        cmi = make(runtime, prior=Prior({}), contrast=contrast, bank=100, negatives=100, **options)
        for number in range(2):
            cmi.synthesize(range(number, number + 1), teacher, student)
        rows = torch.nn.functional.normalize(cmi.head(cmi.bank.rows[:, 56:]), dim=1)
        return (rows[30:] @ rows[:30].T).mean().item()

    assert likeness(5.0) < likeness(1e-6) - 0.05


def test_the_same_seed_gives_the_same_images(runtime, pair):
    first, second, other = (make(runtime, seed=s).synthesize(range(1), *pair()).images for s in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_a_teacher_without_batch_norm_has_no_features_but_may_do_without(runtime, pair, one_round):
    teacher, student = pair(norm="none")
    with pytest.raises(ValueError, match=r"no BatchNorm"):
        make(runtime).check(teacher.net)
    with pytest.raises(ValueError, match=r"its network has none.*synthesizer\.contrast=0"):
        make(runtime, prior=Prior({})).check(teacher.net)
    plain = make(runtime, prior=Prior({}), contrast=0.0)
    plain.check(teacher.net)
    assert set(one_round(plain, teacher, student).metrics) == {"one_hot", "adversarial", "hit"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"contrast": -1.0}, "contrast >= 0.*-1.0"),
        ({"temperature": 0.0}, "temperature > 0.*0.0"),
        ({"bank": 0}, "bank >= 1"),
        ({"negatives": 0}, "negatives >= 1"),
        ({"crop": 0.0}, r"crop.*0\.0"),
        ({"lr": -1.0}, "lr=-1.0"),
        ({"betas": (0.5,)}, r"betas=\[0.5\]"),
    ],
)
def test_impossible_numbers_are_refused(runtime, wrong, said):
    with pytest.raises(ValueError, match=said):
        make(runtime, **wrong)
