"""ATEsc's premise: measured on classifiers whose radii are known, and told where it matters."""

import pytest
import torch
from test_evaluate import EYE, domain, images

from dfkd.defenses.premise import measure_premise, premise_in_words
from dfkd.domains import Domain
from dfkd.scenarios import Scenario


def look(teacher, id: Domain, ood: Domain | None, runtime, eps=(0.1, 0.6), count=100) -> dict:
    scenario = Scenario(id, ood, shared_labels=ood is not None)
    return measure_premise(teacher, scenario, runtime, 0, list(eps), steps=3, images=count)


def test_the_premise_holds_where_id_images_flip_more(linear, runtime):
    teacher = linear(EYE, shape=(3, 1, 1))
    weak, strong = domain([0, 1, 2], [0, 1, 2], strength=0.5), domain([0, 1], [0, 1], "ood", strength=3.0)
    report = look(teacher, weak, strong, runtime)
    assert report["flip_rates"] == [{"eps": 0.1, "id": 0.0, "ood": 0.0}, {"eps": 0.6, "id": 100.0, "ood": 0.0}]
    assert report["holds"] == [False, True]
    assert report["id_confidence"] == pytest.approx(torch.tensor([0.5, 0.0, 0.0]).softmax(0)[0].item(), abs=1e-4)
    assert report["ood_confidence"] == pytest.approx(torch.tensor([3.0, 0.0, 0.0]).softmax(0)[0].item(), abs=1e-4)
    assert report["warnings"] == []
    words, fails = premise_in_words(report, radius=0.6)
    assert not fails and words.startswith("ATEsc's premise holds at the radius in use, eps 153/255: 100 % of the ID")
    assert words.endswith("it does not at 25.5/255 (0 % against 0 %)")


def rates(**flips: tuple[float, float]) -> dict:
    """A report with the shares of ID and OOD images that flip at radii `eN` (N/255)."""
    rows = [{"eps": int(name[1:]) / 255, "id": id, "ood": ood} for name, (id, ood) in flips.items()]
    holds = [row["id"] > row["ood"] for row in rows]
    return {"flip_rates": rows, "holds": holds, "id_confidence": 0.9, "ood_confidence": 0.8}


def test_the_premise_fails_loudly_only_at_the_radius_in_use():
    report = rates(e2=(71, 7), e4=(95, 21), e5=(96, 80), e16=(100, 100))
    words, fails = premise_in_words(report, radius=5 / 255)
    assert not fails and "FAILS" not in words
    assert words.startswith(
        "ATEsc's premise holds at the radius in use, eps 5/255: 96 % of the ID images flip, and 80 %"
    )
    assert words.endswith("it also holds at 2/255, 4/255; it does not at 16/255 (100 % against 100 %)")
    words, fails = premise_in_words(report, radius=16 / 255)
    assert fails and words.startswith("THE PREMISE OF ATEsc FAILS at the radius in use, eps 16/255: 100 % of the ID")
    assert "holds best at 4/255 (95 % against 21 %): set attack.eps" in words
    words, fails = premise_in_words(rates(e2=(1, 2), e4=(3, 4)), radius=4 / 255)
    assert fails and words.endswith("It holds at no radius measured")


def test_where_no_attack_is_in_use_nothing_is_shouted():
    words, fails = premise_in_words(rates(e2=(71, 7), e16=(100, 100)))
    assert not fails and words.endswith("holds at eps 2/255; not at 16/255 (100 % against 100 %)")
    words, fails = premise_in_words(rates(e2=(1, 2), e4=(3, 4)))
    assert not fails and words.endswith("holds at no radius")


def test_without_an_ood_domain_there_is_no_premise(linear, runtime):
    report = look(linear(EYE, shape=(3, 1, 1)), domain([0], [0]), None, runtime)
    assert report["holds"] == [None, None]
    assert report["ood_confidence"] is None and report["flip_rates"][0]["ood"] is None
    assert premise_in_words(report, radius=0.1) == (None, False)


def test_a_blind_attack_is_reported_with_the_domain_it_was_blind_on(linear, runtime):
    steep = linear([[1e4 * v for v in row] for row in EYE], shape=(3, 1, 1))
    faint, clear = domain([0, 1], [0, 1], strength=1e-5), domain([0, 1], [0, 1], "ood")
    said = look(steep, faint, clear, runtime, eps=[1e-6])["warnings"]
    assert said and all(text.startswith("ood: ") for text in said)


def test_at_most_so_many_images_are_attacked(linear, runtime):
    teacher = linear(EYE, shape=(3, 1, 1))
    look(teacher, domain([0] * 50, [0] * 50), None, runtime, eps=[0.01], count=10)
    assert teacher.evals.total() == 10 + 10 * 4 + 2 * 10  # confidence, attack (which knows the answers), determinism


def test_the_split_reported_on_is_the_validation_split(linear, runtime):
    id = domain([0], [0], strength=5.0)
    id.test = images([0], [0], strength=0.01)
    assert look(linear(EYE, shape=(3, 1, 1)), id, None, runtime, eps=[0.5])["flip_rates"][0]["id"] == 0.0
