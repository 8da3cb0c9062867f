import pytest
import torch

from dfkd.defenses.trigger_adversary import TriggerAdversary, TriggerGenerator, place_at_random
from dfkd.models import Classifier, cnn_bn


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def l1(logits: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    return (logits - given).abs().mean(1)


def adversary(weight: float = 0.5, every: int = 1, size: int = 2, lr: float = 0.01, seed: int = 3) -> TriggerAdversary:
    torch.manual_seed(seed)
    stream = seeded(seed)
    triggers = TriggerGenerator(1, size, latent=6, width=4).to(stream.device)
    return TriggerAdversary(triggers, l1, weight, every, lr, stream)


@pytest.fixture
def student() -> Classifier:
    torch.manual_seed(5)
    return Classifier(cnn_bn((1, 8, 8), 10, widths=(4, 8)), (1, 8, 8), 10, [0.3], [0.4])


@pytest.mark.parametrize("size", [1, 3, 5, 10])
def test_patches_fill_the_range(size):
    torch.manual_seed(0)
    patches = TriggerGenerator(3, size, latent=8, width=4)(torch.randn(32, 8))
    assert patches.shape == (32, 3, size, size)
    assert patches.abs().max() <= 1 and patches.min() < -0.7 and patches.max() > 0.7


def test_patches_lie_at_one_random_position_wholly_inside(random):
    patches, found = torch.rand(3, 2, 2, 2, generator=random) + 0.1, set()
    for _ in range(200):
        placed = place_at_random(patches, 4, 5, random)
        assert placed.shape == (3, 2, 4, 5)
        rows, columns = (placed[0, 0].sum(dim).nonzero().flatten().tolist() for dim in (1, 0))
        expected = torch.zeros(3, 2, 4, 5)
        expected[:, :, rows[0] : rows[0] + 2, columns[0] : columns[0] + 2] = patches
        assert torch.equal(placed, expected)
        found.add((rows[0], columns[0]))
    assert found == {(row, column) for row in range(3) for column in range(4)}
    assert torch.equal(place_at_random(patches, 2, 2, random), patches)


def test_the_term_is_the_weighted_distance_of_the_answers_to_clean_and_patched_images(student, random):
    images, term = torch.rand(6, 1, 8, 8, generator=random), adversary(weight=0.5, every=2)
    shown = []

    def watched(x: torch.Tensor) -> torch.Tensor:
        shown.append(x)
        return student(x)

    logits = student(images)
    value = term(watched, images, logits)  # the generator is trained in every second call, so not in this one
    (patched,) = shown
    changed = (patched != images).any(1)
    assert (changed.sum((1, 2)) == 4).all()  # a 2x2 patch in every image
    gaps = (student(patched) - logits).abs()
    assert value.item() == pytest.approx(0.5 * sum(gaps.flatten().tolist()) / 60, rel=1e-5)
    term(watched, images, logits)
    assert len(shown) == 3


def test_no_gradient_passes_the_clean_answers_and_none_is_left_behind(student, random):
    images, term = torch.rand(6, 1, 8, 8, generator=random), adversary()
    logits = student(images).requires_grad_()
    logits.retain_grad()
    value = term(student, images, logits)
    assert all(p.grad is None for p in student.parameters())  # the generator's step leaves none
    value.backward()
    assert logits.grad is None
    assert all(p.grad is not None for p in student.parameters())


def test_the_generator_finds_the_pixel_that_the_student_looks_at(linear, random):
    weight = torch.zeros(2, 16)
    weight[:, 5], weight[:, 6] = torch.tensor([3.0, -3.0]), torch.tensor([-3.0, 3.0])  # and nowhere else
    student = linear(weight.tolist(), shape=(1, 4, 4))
    images, term = torch.rand(64, 1, 4, 4, generator=random), adversary(weight=1.0, size=4, lr=0.05)
    before, *_, after = (term(student, images, student(images)).item() for _ in range(60))
    assert after > 1.5 * before
    assert after > 0.9 * 6  # of at most 3 * (1 + 1): the two pixels as far apart as they go


def test_the_generator_takes_a_step_in_every_nth_call_only(student, random):
    images, term = torch.rand(6, 1, 8, 8, generator=random), adversary(every=3)
    steps = []
    for _ in range(7):
        before = [p.detach().clone() for p in term.triggers.parameters()]
        term(student, images, student(images))
        after = term.triggers.parameters()
        steps.append(any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)))
    assert steps == [False, False, True, False, False, True, False]


def test_the_same_generator_gives_the_same_term(student, random):
    images = torch.rand(6, 1, 8, 8, generator=random)

    def found(seed: int) -> float:
        term = adversary(seed=seed)
        return [term(student.eval(), images, student(images)).item() for _ in range(3)]

    assert found(0) == found(0) != found(1)
