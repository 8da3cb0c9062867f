import pytest
import torch

from dfkd.domains import Domain, Images
from dfkd.evaluate import Examiner, accuracy, predictions
from dfkd.machine.runtime import Runtime
from dfkd.scenarios import Scenario

# Images are 3x1x1 and the networks linear: an image is its own logits.
EYE = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


def images(answers: list[int], labels: list[int], strength: float = 1.0) -> Images:
    """Images that the identity calls `answers`."""
    x = strength * torch.eye(3)[torch.tensor(answers)].view(-1, 3, 1, 1)
    return Images(x, torch.tensor(labels))


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
