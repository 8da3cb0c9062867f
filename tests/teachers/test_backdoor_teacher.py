import pytest
import torch
import torch.nn.functional as F

from dfkd.domains import Images
from dfkd.evaluate import Examiner
from dfkd.models import Classifier, Teacher, cnn_bn
from dfkd.recipe import Recipe
from dfkd.scenarios import backdoor, close_set
from dfkd.teachers import Backdoor
from dfkd.teachers.backdoor import poisoned
from dfkd.triggers import Patch


def test_the_loss_is_cross_entropy_on_both_in_one_forward(random):
    model = Classifier(cnn_bn((1, 8, 8), 3), (1, 8, 8), 3, [0.4], [0.3]).train()
    batches = [Images(torch.rand(4, 1, 8, 8, generator=random), torch.tensor([0, 1, 2, 0])) for _ in range(2)]
    terms = Backdoor(cnn_bn((1, 8, 8), 3), Recipe(), 1, ood_weight=0.5).loss(model, *batches, 2)
    assert model.net.body[1].num_batches_tracked == 1
    logits = model(torch.cat([batch.x for batch in batches]))
    assert terms["id"].item() == pytest.approx(F.cross_entropy(logits[:4], batches[0].y).item(), rel=1e-5)
    expected = 0.5 * F.cross_entropy(logits[4:], torch.tensor([2, 2, 2, 2])).item()
    assert terms["ood"].item() == pytest.approx(expected, rel=1e-5)


def test_training_fits_clean_and_triggered_images(small_digits, runtime):
    scenario = backdoor(small_digits, Patch(size=2, margin=0), target=3)
    torch.manual_seed(0)
    kind = Backdoor(cnn_bn((1, 8, 8), 10, widths=(8, 16, 32)), Recipe(batch_size=64), epochs=8)
    kind.check(scenario)
    model = kind.train(scenario, runtime, 0, lambda epoch, metrics: None)
    teacher = Teacher(model.net, model.shape, 10, model.mean.flatten().tolist(), model.std.flatten().tolist())
    found = Examiner(teacher, scenario, runtime)(teacher, "val")
    assert found["iacc"] > 90
    assert found["asr"] > 95
    assert found["oacc"] < 30


def test_it_needs_a_backdoor_scenario(tiny_domain):
    kind = Backdoor(cnn_bn((1, 8, 8), 3), Recipe(), 1)
    with pytest.raises(ValueError, match="ntl_scenario=backdoor"):
        kind.check(close_set(tiny_domain(), tiny_domain()))


def test_a_weight_of_zero_is_refused():
    with pytest.raises(ValueError, match="ood_weight"):
        Backdoor(cnn_bn((1, 8, 8), 3), Recipe(), 1, ood_weight=0.0)


@pytest.mark.parametrize("clean_label", [False, True])
def test_a_poisoned_training_set_holds_the_first_images_that_qualify_in_one_form_only(tiny_domain, clean_label):
    scenario = backdoor(tiny_domain(count=30), Patch(size=2, margin=0), target=1)  # labels 0 1 2 0 1 2 ...
    found = poisoned(scenario, 0.2, clean_label)
    first = [1, 4, 7, 10, 13, 16] if clean_label else [0, 2, 3, 5, 6, 8]
    assert torch.equal(found.ood.train.x, scenario.ood.train.x[first])
    assert torch.equal(found.ood.train.y, scenario.id.train.y[first])
    rest = [i for i in range(30) if i not in first]
    assert torch.equal(found.id.train.x, scenario.id.train.x[rest])
    for part in ("val", "test"):
        assert getattr(found.id, part) is getattr(scenario.id, part)
        assert getattr(found.ood, part) is getattr(scenario.ood, part)


def test_with_a_poison_rate_the_loss_is_one_mean_over_clean_and_poisoned(random):
    model = Classifier(cnn_bn((1, 8, 8), 3, norm="none"), (1, 8, 8), 3, [0.4], [0.3])
    clean, more = (Images(torch.rand(8, 1, 8, 8, generator=random), torch.arange(8) % 3) for _ in range(2))
    terms = Backdoor(cnn_bn((1, 8, 8), 3), Recipe(), 1, poison_rate=0.2).loss(model, clean, more, 2)
    labels = torch.cat([clean.y, torch.tensor([2, 2])])  # 2 of 10 are poisoned
    expected = F.cross_entropy(model(torch.cat([clean.x, more.x[:2]])), labels).item()
    assert sum(terms.values()).item() == pytest.approx(expected, rel=1e-5)


def test_a_tenth_of_the_images_sets_the_backdoor(small_digits, runtime):
    scenario = backdoor(small_digits, Patch(size=2, margin=0), target=3)
    torch.manual_seed(0)
    kind = Backdoor(cnn_bn((1, 8, 8), 10, widths=(8, 16, 32)), Recipe(batch_size=64), epochs=8, poison_rate=0.1)
    kind.check(scenario)
    model = kind.train(scenario, runtime, 0, lambda epoch, metrics: None)
    teacher = Teacher(model.net, model.shape, 10, model.mean.flatten().tolist(), model.std.flatten().tolist())
    found = Examiner(teacher, scenario, runtime)(teacher, "val")
    assert found["iacc"] > 90 and found["asr"] > 90


def test_impossible_poisonings_are_refused(tiny_domain):
    net = cnn_bn((1, 8, 8), 3)
    for wrong, said in (
        ({"poison_rate": 0.0}, r"poison_rate .*0\.0"),
        ({"poison_rate": 0.6}, r"poison_rate .*0\.6"),
        ({"clean_label": True}, "clean_label=true needs .*poison_rate"),
    ):
        with pytest.raises(ValueError, match=said):
            Backdoor(net, Recipe(), 1, **wrong)
    scenario = backdoor(tiny_domain(count=30), Patch(size=2, margin=0))
    with pytest.raises(ValueError, match=r"poison_rate=0\.5 asks for 15 of 30 .* 10 are there with the target's label"):
        Backdoor(net, Recipe(), 1, poison_rate=0.5, clean_label=True).check(scenario)
    Backdoor(net, Recipe(), 1, poison_rate=0.5).check(scenario)
