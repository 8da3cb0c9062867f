import math

import pytest
import torch

from dfkd.defenses.retrospection import divergence
from dfkd.defenses.vaccine import ShufflingVaccine, shufflable, shuffled_weights, shuffling_term
from dfkd.models import cnn_bn, mlp, resnet


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images(small_digits) -> torch.Tensor:
    return small_digits.val.pixels(slice(0, 60))


def test_the_term_is_minus_the_mean_kl_over_classes_where_both_agree(random):
    t, h = torch.randn(2, 8, 3, generator=random, dtype=torch.float64)
    agreeing = [i for i in range(8) if t[i].argmax() == h[i].argmax()]
    assert 0 < len(agreeing) < 8
    values = []
    for i in agreeing:
        p, q = t[i].softmax(0).tolist(), h[i].softmax(0).tolist()
        values.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 3)
    assert shuffling_term(t, h).item() == pytest.approx(-sum(values) / len(values), rel=1e-9)


def test_the_term_has_gradients_for_both_and_is_zero_where_none_agrees():
    t, h = (torch.tensor([values], requires_grad=True) for values in ([2.0, 0.0], [1.0, 0.0]))
    shuffling_term(t, h).backward()
    assert t.grad.abs().sum() > 0 and h.grad.abs().sum() > 0
    assert t.grad[0, 0] < 0 < h.grad[0, 0]  # gradient descent on the term drives them apart
    assert shuffling_term(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])).item() == 0


def test_convolutions_with_one_input_channel_cannot_be_shuffled():
    assert shufflable(cnn_bn((1, 8, 8), 3)) == ["body.4.weight", "body.8.weight"]
    assert shufflable(cnn_bn((3, 8, 8), 3)) == ["body.0.weight", "body.4.weight", "body.8.weight"]
    assert shufflable(mlp((1, 8, 8), 3)) == []


def test_the_last_layers_are_permuted_along_their_input_channels_and_the_network_is_not_touched(unchanged):
    net = resnet((3, 8, 8), 4, blocks=(1, 1, 1, 1))
    names = shufflable(net)
    check = unchanged(net)
    found = shuffled_weights(net, 5, seeded())
    check()
    assert list(found) == names[-5:] and len(names) > 5
    own = dict(net.named_parameters())
    for name, weight in found.items():
        assert not torch.equal(weight, own[name])
        a, b = (w.detach().transpose(0, 1).flatten(1).sum(1).sort().values for w in (weight, own[name]))
        assert torch.allclose(a, b, atol=1e-5)
    again, other = shuffled_weights(net, 5, seeded()), shuffled_weights(net, 5, seeded(4))
    assert all(torch.equal(found[n], again[n]) for n in found)
    assert any(not torch.equal(found[n], other[n]) for n in found)


def test_the_vaccine_averages_the_logits_of_slow_copies(teacher, images):
    vaccine = ShufflingVaccine(teacher, 0.1, copies=3, layers=1, generator=seeded())
    generator, answers = seeded(), []
    for _ in range(3):
        copy = cnn_bn((1, 8, 8), 10, widths=(8, 16, 32)).to(images.device)
        copy.load_state_dict(teacher.net.state_dict())
        copy.eval()
        with torch.no_grad():
            copy.body[8].weight.copy_(copy.body[8].weight[:, torch.randperm(16, generator=generator)])
            answers.append(copy(teacher.normalize(images)))
    logits = teacher(images)
    expected = 0.1 * shuffling_term(logits, sum(answers) / 3)
    assert vaccine(images, logits).item() == pytest.approx(expected.item(), rel=1e-5)
    assert expected < 0


def test_the_teacher_stays_as_it_was_and_its_copies_are_counted(teacher, small_digits, unchanged):
    check = unchanged(teacher)
    vaccine = ShufflingVaccine(teacher, 0.1, copies=3, layers=1, generator=seeded())
    images = small_digits.val.pixels().requires_grad_()  # of a few dozen, the copies may agree on none
    with teacher.counted_as("synthesis"):
        term = vaccine(images, teacher(images))
    term.backward()
    check()
    assert images.grad.abs().sum() > 0
    assert dict(teacher.evals) == {"synthesis": 4 * len(images)}


def test_following_the_gradient_drives_the_teacher_and_its_shuffled_copies_apart(teacher, images):
    vaccine = ShufflingVaccine(teacher, 1.0, copies=1, layers=1, generator=seeded())
    (weights,) = vaccine.copies

    def answers(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return teacher(x), torch.func.functional_call(teacher.net, weights, (teacher.normalize(x),))

    with torch.no_grad():
        t, h = answers(images)
        agreeing = images[t.argmax(1) == h.argmax(1)]
    x = agreeing.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(vaccine(x, teacher(x)), x)
    with torch.no_grad():
        before, after = (divergence(*answers(moved)).mean() for moved in (agreeing, x - 0.02 * gradient.sign()))
    assert 0 < len(agreeing) < len(images) and after > 1.1 * before
