import pytest
import torch

from dfkd.domains import Domain, Images
from dfkd.scenarios import backdoor, close_set, none, open_set
from dfkd.triggers import Blend, Patch


def test_a_backdoors_ood_domain_is_the_id_domain_with_the_trigger(small_digits):
    scenario = backdoor(small_digits, Patch(size=2, margin=1), target=4)
    for part in ("train", "val", "test"):
        clean, stamped = getattr(scenario.id, part), getattr(scenario.ood, part)
        expected = clean.x.clone()
        expected[:, :, 5:7, 5:7] = 255
        assert stamped.x.dtype == torch.uint8
        assert torch.equal(stamped.x, expected)
        assert torch.equal(stamped.y, clean.y)  # true labels, for the accuracy beside the attack's success
    assert scenario.backdoor and scenario.shared_labels and scenario.ood_label == 4
    assert scenario.ood.mean == scenario.id.mean and scenario.ood.std == scenario.id.std
    assert scenario.ood.name == "digits_triggered"


def test_float_images_stay_float_and_inside_the_box(tiny_domain):
    domain = tiny_domain()
    scenario = backdoor(domain, Blend(0.25), target=0)
    assert scenario.ood.train.x.dtype == torch.float32
    assert torch.allclose(scenario.ood.train.x, Blend(0.25)(domain.train.x))


def test_more_images_than_are_stamped_at_once():
    images = Images(torch.zeros(4001, 1, 4, 4, dtype=torch.uint8), torch.zeros(4001, dtype=torch.long))
    scenario = backdoor(Domain("many", 1, images, images, images), Patch(size=1, margin=0))
    assert scenario.ood.train.x.flatten(1).sum(1).tolist() == [255] * 4001


def test_the_four_scenarios_say_what_is_measured(tiny_domain):
    id, ood = tiny_domain(name="a"), tiny_domain(name="b", seed=1)
    assert none(id).ood is None and none(id).ood_label is None
    close = close_set(id, ood)
    assert (close.shared_labels, close.ood_label, close.backdoor) == (True, None, False)
    opened = open_set(id, ood, ood_label=2)
    assert (opened.shared_labels, opened.ood_label, opened.backdoor) == (False, 2, False)


def test_domains_that_do_not_go_together_are_refused(tiny_domain):
    with pytest.raises(ValueError, match=r"1x8x8.*3x8x8.*data\.size"):
        close_set(tiny_domain(), tiny_domain(shape=(3, 8, 8)))
    with pytest.raises(ValueError, match=r"3 classes.*4.*open_set"):
        close_set(tiny_domain(), tiny_domain(classes=4))
    open_set(tiny_domain(), tiny_domain(classes=4))
    with pytest.raises(ValueError, match=r"0\.\.2, got 3"):
        open_set(tiny_domain(), tiny_domain(), ood_label=3)
    with pytest.raises(ValueError, match="got -1"):
        backdoor(tiny_domain(), Patch(size=1), target=-1)
    with pytest.raises(ValueError, match="does not fit"):
        backdoor(tiny_domain(), Patch(size=8, margin=1))
