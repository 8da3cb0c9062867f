import pytest
import torch

from dfkd.models import Classifier, batch_norms, timm_model


def check_interface(network, shape, random) -> None:
    x = torch.rand(2, *shape, generator=random)
    network.eval()
    with torch.no_grad():
        features = network.features(x)
        assert features.dim() == 2
        assert torch.allclose(network(x), network.head(features), atol=1e-5)
        assert network(x).shape == (2, 6)


@pytest.mark.parametrize("model", ["resnet18", "test_resnet", "mobilenetv3_small_050", "test_convnext"])
def test_convolutional_networks_take_small_images(model, random):
    check_interface(timm_model((3, 32, 32), 6, model), (3, 32, 32), random)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
def test_a_vision_transformer_takes_small_images(shape, random):
    network = timm_model(shape, 6, "test_vit", patch_size=4)
    check_interface(network, shape, random)
    assert network.net.patch_embed.num_patches == (shape[1] // 4) ** 2


def test_the_small_stem_keeps_the_resolution():
    network = timm_model((3, 32, 32), 10, "resnet18")
    assert network.net.conv1.kernel_size == (3, 3) and network.net.conv1.stride == (1, 1)
    assert isinstance(network.net.maxpool, torch.nn.Identity)
    assert sum(p.numel() for p in network.parameters()) == 11_173_962
    assert len(batch_norms(network)) == 20
    large = timm_model((3, 32, 32), 10, "resnet18", small_stem=False)
    assert large.net.conv1.kernel_size == (7, 7)


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(ValueError, match=r"'resnet81'.*resnet18"):
        timm_model((3, 32, 32), 10, "resnet81")


def test_patches_that_do_not_divide_the_image_are_refused():
    with pytest.raises(ValueError, match="patch_size=5 does not divide the 32x32"):
        timm_model((3, 32, 32), 10, "test_vit", patch_size=5)


def test_images_that_a_transformer_was_not_made_for_are_a_clear_error():
    network = timm_model((3, 32, 32), 10, "vit_tiny_patch16_224", patch_size=8)
    with pytest.raises(ValueError, match="cannot take 3x28x28"):
        Classifier(network, (3, 28, 28), 10, [0.5], [0.5])
