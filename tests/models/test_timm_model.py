"""timm's models with patches of their own: they work, or one message says why not."""

import pytest
import timm
import torch

from dfkd.models import Classifier, timm_model


def timm_makes(model: str) -> bool:
    """Whether this version of timm can make the model for images of 32x32 pixels."""
    try:
        return timm.create_model(model, img_size=(32, 32)) is not None
    except (AssertionError, TypeError, ValueError):
        return False


@pytest.mark.parametrize("model", ["efficientvit_m0", "visformer_tiny"])
def test_patches_that_clash_with_a_models_stem_are_one_clear_message_and_its_own_work(model):
    with pytest.raises(ValueError, match=rf"timm cannot make {model} with .*patch_size=4 \(.+\); set patch_size=null"):
        timm_model((3, 32, 32), 5, model, patch_size=4)
    if not timm_makes(model):
        pytest.skip(f"timm {timm.__version__} itself cannot make it for such images")
    net = timm_model((3, 32, 32), 5, model, patch_size=None)  # not on "meta": old models read numbers from tensors
    assert net.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("bad size"), KeyError("stem"), ZeroDivisionError()])
@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "resnet18"])
def test_a_model_that_cannot_be_made_for_such_images_is_one_clear_message(monkeypatch, error, model):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("timm.create_model", fail)
    with pytest.raises(ValueError, match=rf"timm cannot make {model} with .* \(.+\); set .*or another model"):
        timm_model((3, 32, 32), 5, model)


def test_a_model_that_takes_other_images_only_is_one_clear_message():
    net = timm_model((3, 32, 32), 5, "crossvit_tiny_240", patch_size=None)
    with pytest.raises(ValueError, match=r"the network cannot take 3x32x32 images: .+"):
        Classifier(net, (3, 32, 32), 5, [0.5], [0.5])
