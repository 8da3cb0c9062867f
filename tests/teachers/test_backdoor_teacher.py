import pytest
import torch
import torch.nn.functional as F

from dfkd.domains import Images
from dfkd.evaluate import Examiner
from dfkd.models import Classifier, Teacher, cnn_bn
from dfkd.recipe import Recipe
from dfkd.scenarios import backdoor, close_set
from dfkd.teachers import Backdoor
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
