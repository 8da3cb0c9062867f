import math

import pytest
import torch

from dfkd.domains import Domain, Images
from dfkd.evaluate import Examiner, _tail, accuracy, chance_in_words, predictions
from dfkd.machine.runtime import Runtime
from dfkd.scenarios import Scenario

# Images are 3x1x1 and the networks linear: an image is its own logits.
EYE = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


def images(answers: list[int], labels: list[int], strength: float = 1.0) -> Images:
    """Images that the identity calls `answers`."""
    x = strength * torch.eye(3)[torch.tensor(answers)].view(-1, 3, 1, 1)
    return Images(x, torch.tensor(labels)).to("cpu")


def domain(answers: list[int], labels: list[int], name: str = "hand", strength: float = 1.0) -> Domain:
    given, other = images(answers, labels, strength), images([0], [0])
    return Domain(name, 3, other, given, other, [0.0], [1.0])


@pytest.fixture
def identity(linear):
    return linear(EYE, shape=(3, 1, 1))


@pytest.fixture
def cyclic(linear):
    """Answers one class further on than the identity."""
    return linear([EYE[2], EYE[0], EYE[1]], shape=(3, 1, 1))


def test_accuracy_is_the_percentage_of_hits(identity, runtime):
    assert accuracy(identity, images([0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 0, 1]), runtime) == 66.67


def test_predictions_do_not_depend_on_the_chunk(identity):
    given = images([0, 1, 2, 2, 1], [0] * 5)
    whole, parts = (predictions(identity, given, Runtime(torch.device("cpu"), chunk=c)) for c in (1000, 2))
    assert torch.equal(whole, parts) and whole.shape == (5, 3)


def test_without_an_ood_domain_only_the_id_numbers_apply(identity, cyclic, runtime):
    scenario = Scenario(domain([0, 1, 2, 2], [0, 1, 1, 0]))
    examiner = Examiner(identity, scenario, runtime)
    assert examiner(identity, "val") == {"iacc": 50.0, "oacc": None, "olacc": None, "asr": None, "agreement": 100.0}
    assert examiner(cyclic, "val") == {"iacc": 25.0, "oacc": None, "olacc": None, "asr": None, "agreement": 0.0}


def test_the_asr_leaves_out_images_of_the_target_class(identity, runtime):
    ood = domain([0, 0, 0, 1, 0], [0, 0, 1, 1, 2])  # of three images of other classes, two are called 0
    scenario = Scenario(domain([0], [0]), ood, ood_label=0, shared_labels=True, backdoor=True)
    found = Examiner(identity, scenario, runtime)(identity, "val")
    assert found["asr"] == 66.67
    assert found["oacc"] == 60.0
    assert found["olacc"] is None


def test_the_asr_of_target_images_alone_does_not_exist(identity, runtime):
    scenario = Scenario(domain([0], [0]), domain([0, 0], [0, 0]), ood_label=0, shared_labels=True, backdoor=True)
    assert Examiner(identity, scenario, runtime)(identity, "val")["asr"] is None


def test_olacc_in_an_open_set_is_how_often_the_taught_label_is_given(identity, runtime):
    scenario = Scenario(domain([0], [0]), domain([1, 1, 1, 0], [0, 1, 2, 0]), ood_label=1)
    found = Examiner(identity, scenario, runtime)(identity, "val")
    assert (found["olacc"], found["oacc"], found["asr"]) == (75.0, None, None)


def test_olacc_in_a_close_set_is_how_often_the_teachers_errors_are_repeated(identity, linear, runtime):
    ood = domain([0, 1, 2, 1], [0, 0, 0, 0])  # the teacher errs on the last three
    scenario = Scenario(domain([0], [0]), ood, shared_labels=True)
    only_one = linear([[0.1, 0.0, 0.1], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]], shape=(3, 1, 1))  # knows 0 and 1, calls 2 0
    found = Examiner(identity, scenario, runtime)(only_one, "val")
    assert found["olacc"] == 66.67
    assert found["oacc"] == 50.0
    assert Examiner(identity, scenario, runtime)(identity, "val")["olacc"] == 100.0


def test_agreement_is_with_the_teacher_not_with_the_labels(identity, linear, runtime):
    scenario = Scenario(domain([0, 1, 2, 2], [1, 1, 1, 1]))
    constant = linear([[0.0] * 3] * 3, [0.0, 0.0, 1.0], shape=(3, 1, 1))
    found = Examiner(identity, scenario, runtime)(constant, "val")
    assert (found["agreement"], found["iacc"]) == (50.0, 0.0)


def test_the_teacher_answers_once_and_the_splits_are_kept_apart(identity, cyclic, runtime):
    scenario = Scenario(domain([0, 1], [0, 1]))
    scenario.id.test = images([2, 2, 2], [2, 2, 2])
    examiner = Examiner(identity, scenario, runtime)
    examiner(cyclic, "val")
    examiner(cyclic, "val")
    assert identity.evals.total() == 2
    assert examiner(identity, "test")["agreement"] == 100.0


def test_the_limit_takes_the_first_images(identity, runtime):
    scenario = Scenario(domain([0, 1, 2, 2], [0, 1, 0, 0]))
    assert Examiner(identity, scenario, runtime, limit=2)(identity, "val")["iacc"] == 100.0


def labels(*counts: int) -> torch.Tensor:
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


@pytest.mark.parametrize(
    ("iacc", "counts", "at_chance"),
    [
        (10.67, [45] * 10, True),
        (13.0, [45] * 10, True),  # as much comes by chance in 2 of 100 cases
        (14.0, [45] * 10, False),  # in 4 of 1000
        (0.0, [45] * 10, True),
        (97.5, [45] * 10, False),
        (55.0, [50, 50], True),
        (65.0, [50, 50], False),
        (90.0, [90, 10], True),  # what always saying the first class comes to
        (97.0, [90, 10], False),
        (2.0, [50] * 200, False),  # twice what chance comes to, on many images
        (1.0, [100] * 100, True),
        (75.0, [2, 2], True),
        (100.0, [1, 1], False),  # too few images to tell, but all are right
        (20.0, [1000] * 10, False),
        (10.2, [1000] * 10, True),
    ],
)
def test_whether_a_teacher_is_at_chance_is_a_question_of_significance(iacc, counts, at_chance):
    words = chance_in_words(iacc, labels(*counts), len(counts))
    assert (words is not None) == at_chance
    if at_chance:
        assert f"right on {iacc:.1f} % of {sum(counts)} test images, and calling all of them class 0" in words


def test_chance_counts_classes_without_a_test_image():
    assert chance_in_words(50.0, labels(1, 0, 1, 0), 4) is not None


def test_the_tail_of_a_binomial_distribution():
    exact = sum(math.comb(20, k) * 0.3**k * 0.7 ** (20 - k) for k in range(9, 21))
    assert math.isclose(_tail(9, 20, 0.3), exact, rel_tol=1e-9)
