import math
import unittest.mock

import pytest
import torch

from dfkd.priors import L2, BatchNormPrior, Prior, TotalVariation
from dfkd.synthesizers import AdaptiveDeepInversion, DeepInversion
from dfkd.synthesizers.deepinversion import competition_term, draw_moves, jensen_shannon, move, moved_indices


def slow_jsd(s: list[float], t: list[float], temperature: float) -> float:
    def softmax(logits):
        powers = [math.exp(v / temperature) for v in logits]
        return [power / sum(powers) for power in powers]

    def clamp(v):
        return min(max(v, 0.01), 0.99)

    total = 0.0
    for p, q in zip(softmax(t), softmax(s), strict=True):
        m = clamp((p + q) / 2)
        total += 0.5 * m * math.log(m / clamp(p)) + 0.5 * m * math.log(m / clamp(q))
    return total


def test_the_divergence_equals_the_sum_over_classes(random):
    s, t = 4 * torch.randn(2, 6, 5, generator=random, dtype=torch.float64)
    expected = [slow_jsd(a, b, 3.0) for a, b in zip(s.tolist(), t.tolist(), strict=True)]
    assert jensen_shannon(s, t, 3.0).tolist() == pytest.approx(expected, rel=1e-9)
    assert jensen_shannon(t, t).abs().max() < 1e-12
    assert jensen_shannon(s, t, 1.0).mean() > jensen_shannon(s, t, 3.0).mean()


def test_the_competition_is_one_minus_the_weighted_mean_kept_within_zero_and_one():
    divergence = torch.tensor([0.2, 0.6])
    assert competition_term(divergence, torch.ones(2)).item() == pytest.approx(0.6)
    assert competition_term(divergence, torch.tensor([1.0, 0.0])).item() == pytest.approx(0.9)
    assert competition_term(4 * divergence, torch.ones(2)).item() == 0.0


def test_a_move_shifts_and_mirrors_the_whole_batch_and_loses_no_pixel():
    images = torch.arange(16.0).view(1, 1, 4, 4).repeat(3, 1, 1, 1)
    down, right, mirrored = torch.tensor([[1], [-2], [1]])
    (rows,), (columns,) = moved_indices(4, 4, down, right, mirrored.bool())
    moved = move(images, rows, columns)
    assert torch.equal(moved[0], moved[2])
    for i in range(4):
        for j in range(4):
            # mirrored last: pixel (i, 3 - j) of the shifted image, which came from one row up and two columns right
            assert moved[0, 0, i, j] == images[0, 0, (i - 1) % 4, (3 - j + 2) % 4]


@pytest.mark.parametrize("mirror", [True, False])
def test_moves_go_everywhere_and_half_of_them_are_mirrored_where_asked_for(random, mirror):
    moves = list(zip(*(part.tolist() for part in draw_moves(200, 1, mirror, random)), strict=True))
    assert {(down, right) for down, right, _ in moves} == {(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)}
    mirrored = sum(side for _, _, side in moves)
    assert 70 < mirrored < 130 if mirror else mirrored == 0
    assert not any(part.any() for part in draw_moves(20, 0, False, random))


def test_every_step_sees_another_move(runtime, pair):
    teacher, _ = pair()
    method, seen = make(runtime, steps=6), []
    teacher.net.register_forward_pre_hook(lambda net, arguments: seen.append(arguments[0].detach()))
    with unittest.mock.patch("dfkd.synthesizers.deepinversion.fused"):  # the pixels stay, but for the clipping
        method.synthesize(range(1), teacher)
    assert any(not torch.equal(a, seen[1]) for a in seen[2:])
    assert all(torch.allclose(a.sum(), seen[1].sum(), atol=1e-3) for a in seen[2:])


def make(runtime, kind=DeepInversion, shape=(1, 8, 8), classes=4, prior=None, **options) -> DeepInversion:
    prior = Prior({"bn": BatchNormPrior(1.0), "tv": TotalVariation(1e-3)}) if prior is None else prior
    defaults = {"rounds": 3, "steps": 3, "batch_size": 8, "box": (0.0, 1.0)}
    method = kind(shape, classes, prior, **(defaults | options))
    method.start(runtime, 0)
    return method


@pytest.mark.parametrize("kind", [DeepInversion, AdaptiveDeepInversion])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16)])
@pytest.mark.parametrize("clip", [True, False])
def test_a_round_gives_a_batch_with_its_targets(runtime, pair, one_round, kind, shape, clip):
    teacher, student = pair(shape)
    method = make(runtime, kind, shape, clip=clip)
    made = one_round(method, teacher, student if method.online else None)
    assert made.images.shape == (8, *shape)
    assert made.images.dtype == (torch.uint8 if clip else torch.float32)
    assert clip or made.images.min() < 0 or made.images.max() > 1
    assert made.columns["target"].bincount().tolist() == [2, 2, 2, 2]
    assert {"one_hot", "bn", "tv", "hit"} <= set(made.metrics)
    assert ("competition" in made.metrics) == method.online


def test_without_batch_norm_the_prior_is_refused_and_the_rest_runs(runtime, pair, one_round):
    teacher, _ = pair(norm="none")
    with pytest.raises(ValueError, match=r"no BatchNorm.*~prior\.bn"):
        make(runtime).check(teacher.net)
    plain = make(runtime, prior=Prior({"l2": L2(1e-3)}))
    plain.check(teacher.net)
    assert one_round(plain, teacher).images.shape == (8, 1, 8, 8)


def test_the_pixels_are_clipped_to_the_box_in_every_step(runtime, pair):
    teacher, _ = pair()
    method = make(runtime, lr=5.0)
    stream = method.stream(0)
    optimization = method.begin(0, method.labels(stream), teacher, stream)
    optimization.parameters[0].grad = torch.randn(optimization.parameters[0].shape, generator=stream)
    optimization.advance()
    images = optimization.make(optimization.source).detach()
    assert (images.min().item(), images.max().item()) == pytest.approx((0.0, 1.0), abs=1e-5)


def test_the_loss_falls_and_the_teacher_comes_to_see_the_targets(runtime, teacher):
    short, long = (
        make(runtime, classes=10, steps=steps, batch_size=40, flip=False, jitter=0).synthesize(range(1), teacher)
        for steps in (1, 60)
    )
    for term in ("one_hot", "bn"):
        assert long.metrics[term] < 0.6 * short.metrics[term]
    hits = teacher.predict(long.images.float() / 255).argmax(1) == long.columns["target"]
    assert hits.float().mean() > 0.8 > 0.4 > short.metrics["hit"]


def test_the_competition_makes_the_student_disagree(runtime, teacher, student):
    options = {"classes": 10, "steps": 40, "batch_size": 30, "prior": Prior({}), "jitter": 0, "flip": False}
    divergence = []
    for alpha in (1e-9, 50.0):
        method = make(runtime, AdaptiveDeepInversion, alpha=alpha, **options)
        images = method.synthesize(range(1), teacher, student).images.float() / 255
        divergence.append(jensen_shannon(student.predict(images), teacher.predict(images)).mean().item())
    assert divergence[1] > 1.3 * divergence[0]


def test_the_competition_is_steered(runtime, pair, one_round):
    teacher, student = pair()
    method = make(runtime, AdaptiveDeepInversion, steps=1, alpha=2.0)
    made = one_round(method, teacher, student, lambda images, logits: torch.zeros(len(images)))
    assert made.metrics["competition"].item() == pytest.approx(2.0)
    assert one_round(method, teacher, student).metrics["competition"].item() < 2.0 - 1e-4


def test_a_round_depends_on_the_seed_and_its_number_alone(runtime, teacher):
    one, other = make(runtime, classes=10), make(runtime, classes=10)
    one.synthesize(range(1), teacher)
    second = one.synthesize(range(1, 2), teacher).images
    assert torch.equal(second, other.synthesize(range(1, 2), teacher).images)
    assert not torch.equal(second, other.synthesize(range(1), teacher).images)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"jitter": -1}, "jitter.*-1"),
        ({"jitter": 8}, "jitter.*8"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"betas": (0.5, 1.0)}, r"betas=\[0.5, 1.0\]"),
        ({"box": None}, "clip=true.*None; set clip=false"),
    ],
)
def test_impossible_numbers_are_refused(runtime, wrong, said):
    with pytest.raises(ValueError, match=said):
        make(runtime, **wrong)


def test_an_adaptive_one_that_does_not_compete_is_refused(runtime, pair):
    with pytest.raises(ValueError, match="alpha"):
        make(runtime, AdaptiveDeepInversion, alpha=-1.0)
    with pytest.raises(ValueError, match="synthesizer=deepinversion"):
        make(runtime, AdaptiveDeepInversion, alpha=0.0).check(pair()[0].net)
