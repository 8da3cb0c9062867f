"""One step of every OOD teacher on every family of networks; what is saved is the plain network."""

import json

import pytest
import torch
from runner import a_few

from dfkd import models
from dfkd.models import load_classifier, save_classifier
from dfkd.recipe import Recipe
from dfkd.scenarios import close_set
from dfkd.teachers import CUPI, CUTI, HNTL, SOPHON, Disentanglement

RECIPE = Recipe(batch_size=8)
TEACHERS = {
    "cuti": lambda net: CUTI(net, RECIPE, 2),  # a step of either kind
    "cupi": lambda net: CUPI(net, RECIPE, 2),
    "hntl": lambda net: HNTL(net, RECIPE, 1, disentangle=Disentanglement(RECIPE, 1, latent=4, width=4)),
    "sophon": lambda net: SOPHON(net, RECIPE, 1, rounds=1, batches=1, adapt=4, evaluate=4, id_steps=1),
}
NETWORKS = {
    "cnn_bn": ("cnn_bn", {}),
    "vgg11_bn": ("vgg", {"depth": 11}),
    "vgg11": ("vgg", {"depth": 11, "batch_norm": False}),
    "resnet10": ("resnet", {"blocks": [1, 1, 1, 1]}),
    "wrn_16_1": ("wrn", {}),
    "vit": ("timm_model", {"model": "test_vit", "patch_size": 4}),
}


@pytest.mark.parametrize("network", a_few(NETWORKS, "cnn_bn", "vit"))
@pytest.mark.parametrize("teacher", TEACHERS)
def test_one_step_trains_and_the_plain_network_is_saved(teacher, network, tiny_domain, runtime, tmp_path):
    function, options = NETWORKS[network]
    torch.manual_seed(0)
    net = getattr(models, function)((1, 8, 8), 3, **options)
    scenario = close_set(tiny_domain(count=9), tiny_domain(count=9, seed=1))
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    kind = TEACHERS[teacher](net)
    kind.check(scenario)
    model = kind.train(scenario, runtime, 0, lambda epoch, metrics: None)
    assert not model.training and model.net is net
    assert any(not torch.equal(p.cpu(), before[name]) for name, p in net.named_parameters())
    assert all(p.requires_grad for p in net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())

    save_classifier(model, {"_target_": f"dfkd.models.{function}", **options}, tmp_path, "teacher")
    loaded = load_classifier(tmp_path / "teacher.json")
    x = scenario.id.val.x
    assert torch.allclose(loaded.predict(x), model.predict(x), atol=1e-4)
    assert json.loads((tmp_path / "teacher.json").read_text())["classes"] == 3
