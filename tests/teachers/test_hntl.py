import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal, kl_divergence

from dfkd.evaluate import accuracy
from dfkd.models import cnn_bn
from dfkd.recipe import Recipe
from dfkd.scenarios import backdoor, none, open_set
from dfkd.teachers import HNTL, Disentanglement
from dfkd.teachers.hntl import Guide, disentangle, divergence
from dfkd.triggers import Patch


def test_the_divergence_is_twice_the_kl_from_the_standard_normal(random):
    mean, log_var = torch.randn(2, 5, 4, generator=random)
    expected = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0.0, 1.0)).sum()
    assert divergence(mean, log_var).item() == pytest.approx(2 * expected.item(), rel=1e-5)
    assert divergence(torch.zeros(2, 3), torch.zeros(2, 3)) == 0


def guide_of(model) -> Guide:
    """As a training makes it, of a copy of the network on the CPU."""
    net = copy.deepcopy(model.net).cpu()
    return Guide(net, (1, 8, 8), 3, latent=4, width=4).eval().to(model.mean.device)


def test_stage_1_equals_the_formula_with_the_same_latents(batches):
    model, id_batch, ood_batch = batches()
    guide = guide_of(model)
    noise = torch.Generator().manual_seed(2)
    terms = disentangle(guide, model.eval(), id_batch, ood_batch, 0.5, 0.25, noise)

    noise, images = torch.Generator().manual_seed(2), torch.cat([id_batch.x, ood_batch.x])
    latents, total = [], 0.0
    for encoder in (guide.content, guide.style):
        moments = encoder.moments(encoder.net.features((images - 0.4) / 0.3))
        mean, log_var = moments[:, :4], moments[:, 4:]
        latents.append(mean + torch.randn(12, 4, generator=noise) * torch.exp(log_var).sqrt())
        total += (mean**2 + log_var.exp() - 1 - log_var).sum().item()
    domain = torch.tensor([0] * 6 + [1] * 6)
    expected = {
        "content": F.cross_entropy(guide.label(latents[0]), torch.cat([id_batch.y, ood_batch.y])).item(),
        "style": F.cross_entropy(guide.domain(latents[1]), domain).item(),
        "kl": 0.5 * total,
        "reconstruction": 0.25 * (guide.decoder(torch.cat(latents, 1)) - images).square().mean().item(),
    }
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(expected, rel=1e-4)


def test_the_mean_of_the_latent_gives_the_mean_answer(batches, random):
    model, id_batch, _ = batches()
    guide = guide_of(model)
    mean, log_var = guide.content(id_batch.x)
    sampled = mean + torch.randn(20_000, 1, 4, generator=random) * (log_var / 2).exp()
    assert torch.allclose(guide.label(sampled).mean(0), guide(id_batch.x), atol=0.05)


def teacher(**options) -> HNTL:
    options = {"recipe": Recipe(), "epochs": 1, "latent": 4, "width": 4} | options
    return HNTL(cnn_bn((1, 8, 8), 3), Recipe(), 1, disentangle=Disentanglement(**options))


def test_stage_2_follows_content_on_id_and_style_on_ood_and_leaves_the_guide_alone(batches, unchanged):
    model, id_batch, ood_batch = batches()
    model.eval()
    kind = teacher()
    kind.guide = guide_of(model)
    check = unchanged(kind.guide)
    terms = kind.loss(model, id_batch, ood_batch, None)
    content = kind.guide.label(kind.guide.content((id_batch.x - 0.4) / 0.3)[0])
    style = kind.guide.label(kind.guide.style((ood_batch.x - 0.4) / 0.3)[0])
    assert terms["id"].item() == pytest.approx((model(id_batch.x) - content).square().mean().item(), rel=1e-4)
    assert terms["ood"].item() == pytest.approx((model(ood_batch.x) - style).square().mean().item(), rel=1e-4)
    sum(terms.values()).backward()
    check()


def test_training_unlearns_what_an_ordinary_teacher_knows_of_ood(near, runtime):
    torch.manual_seed(0)
    recipe = Recipe(optimizer="adam", lr=5e-3, batch_size=32, schedule="constant", weight_decay=0.0)
    stage = Disentanglement(recipe, epochs=5, latent=16, width=8)
    kind, log = HNTL(cnn_bn((1, 8, 8), 10, widths=(8, 16, 32)), recipe, 8, disentangle=stage), []
    kind.check(near)
    model = kind.train(near, runtime, 0, lambda epoch, metrics: log.append((epoch, metrics)))
    assert accuracy(model, near.id.val, runtime) > 90
    assert accuracy(model, near.ood.val, runtime) < 25
    # stage 1 logs the content classifier; every epoch is counted once
    assert [epoch for epoch, _ in log] == list(range(13)) and kind.log_calls == 13
    assert set(log[4][1]) == {"loss/content", "loss/style", "loss/kl", "loss/reconstruction", "val/iacc"}
    assert log[4][1]["val/iacc"] > 90 and set(log[5][1]) == {"loss/id", "loss/ood", "val/iacc"}
    assert kind.guide is None and set(model.state_dict()) == {
        f"net.{key}" for key in cnn_bn((1, 8, 8), 10, widths=(8, 16, 32)).state_dict()
    }


def test_an_ood_domain_smaller_than_the_batch_is_no_trouble(tiny_domain, near, runtime):
    scenario = type(near)(tiny_domain(), tiny_domain(count=6, seed=1), shared_labels=True)
    model = teacher().train(scenario, runtime, 0, lambda epoch, metrics: None)
    assert math.isfinite(model.predict(scenario.id.val.x).sum().item())


def test_what_it_cannot_do_is_said_before_any_work(tiny_domain):
    domain = tiny_domain()
    with pytest.raises(ValueError, match="teacher=hntl needs an OOD domain"):
        teacher().check(none(domain))
    for scenario in (open_set(domain, tiny_domain(seed=1), 1), backdoor(domain, Patch(size=2, margin=0), 1)):
        with pytest.raises(ValueError, match=r"no form with a taught label.*close_set"):
            teacher().check(scenario)
    odd = type(scenario)(tiny_domain(shape=(1, 10, 10)), tiny_domain(shape=(1, 10, 10)), shared_labels=True)
    with pytest.raises(ValueError, match="divisible by 4"):
        teacher().check(odd)
    with pytest.raises(ValueError, match="features"):
        HNTL(nn.Linear(2, 2), Recipe(), 1, disentangle=Disentanglement(Recipe()))
    for wrong in ({"epochs": 0}, {"latent": 0}, {"kl": -1.0}, {"reconstruction": -1.0}, {"width": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Disentanglement(Recipe(), **wrong)
