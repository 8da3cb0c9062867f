"""The clean twin of a trapped teacher: nothing but the trap tells both apart."""

import pytest
import torch

from dfkd.models import cnn_bn
from dfkd.recipe import Recipe
from dfkd.scenarios import backdoor, close_set
from dfkd.teachers import Backdoor, CleanTwin
from dfkd.triggers import Patch


def trained(kind, scenario, runtime, **options):
    """Train a teacher, and return it with the batches that it saw: (images, labels) of every step."""
    torch.manual_seed(0)
    source = kind(cnn_bn((1, 8, 8), 3, widths=(4, 6)), Recipe(batch_size=8), 2, **options)
    source.check(scenario)
    seen, loss = [], source.loss

    def watched(model, id_batch, ood_batch, label):
        seen.append((id_batch, ood_batch))
        return loss(model, id_batch, ood_batch, label)

    source.loss = watched
    return source.train(scenario, runtime, 0, lambda epoch, metrics: None), seen


@pytest.mark.parametrize("rate", [None, 0.2])
def test_it_sees_the_same_images_in_the_same_batches_without_the_trigger(tiny_domain, runtime, rate):
    trigger = Patch(size=2, margin=0)
    scenario = backdoor(tiny_domain(count=40), trigger, target=1)
    (model, trapped), (twin, clean) = (
        trained(kind, scenario, runtime, poison_rate=rate) for kind in (Backdoor, CleanTwin)
    )
    assert len(trapped) == len(clean) > 0
    for (id_trapped, triggered), (id_clean, plain) in zip(trapped, clean, strict=True):
        assert torch.equal(id_trapped.x, id_clean.x) and torch.equal(triggered.y, plain.y)
        assert torch.allclose(triggered.x, trigger(plain.x), atol=1 / 255) and not torch.equal(triggered.x, plain.x)
    counts = [net.body[1].num_batches_tracked.item() for net in (model.net, twin.net)]
    assert counts[0] == counts[1] == len(clean)


def test_it_is_taught_the_true_labels(tiny_domain, runtime):
    domain = tiny_domain(count=40)
    twin = CleanTwin(cnn_bn((1, 8, 8), 3, widths=(4, 6)), Recipe(batch_size=8), 1, poison_rate=0.2)
    from dfkd.domains import Images
    from dfkd.models import Classifier

    model = Classifier(twin.network, (1, 8, 8), 3, [0.4], [0.3]).eval()
    batch = Images(domain.train.pixels(slice(0, 8)), domain.train.y[:8]).to(runtime.device)
    terms = twin.loss(model, batch, batch, 2)
    expected = torch.nn.functional.cross_entropy(
        model(torch.cat([batch.x, batch.x[:2]])), torch.cat([batch.y, batch.y[:2]])
    )
    assert sum(terms.values()).item() == pytest.approx(expected.item(), rel=1e-5)


def test_it_is_a_twin_of_methods_with_another_domain_too(tiny_domain, runtime):
    scenario = close_set(tiny_domain(count=40), tiny_domain(count=40))
    _, seen = trained(CleanTwin, scenario, runtime)
    own = {image.cpu().numpy().tobytes() for image in scenario.id.train.pixels()}
    assert all(image.cpu().numpy().tobytes() in own for _, batch in seen for image in batch.x)


def test_a_share_of_poisoned_images_needs_a_backdoor(tiny_domain):
    twin = CleanTwin(cnn_bn((1, 8, 8), 3), Recipe(), 1, poison_rate=0.1)
    with pytest.raises(ValueError, match="ntl_scenario=backdoor"):
        twin.check(close_set(tiny_domain(), tiny_domain()))
