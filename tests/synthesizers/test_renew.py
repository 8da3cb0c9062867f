import pytest
import torch
from torch import nn

from dfkd.machine.runtime import seeded, stream_seed
from dfkd.models import DCGAN, NLGenerator
from dfkd.synthesizers.renew import check_renewable, renew, renew_first


@pytest.mark.parametrize("make", [lambda: DCGAN((1, 8, 8), 8, 8), lambda: NLGenerator((1, 8, 8), 3, 8, 8, 8)])
def test_a_renewed_generator_is_like_one_just_made(make):
    torch.manual_seed(0)
    net = make()
    with torch.no_grad():
        for parameter in [*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())]:
            parameter.add_(1.0)
    renew(net, 3, "generator", 7)
    with seeded(3, "generator", 7):
        twin = make()
        torch.manual_seed(stream_seed(3, "generator", 7))
        for module in twin.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    for key, value in twin.state_dict().items():
        assert torch.equal(net.state_dict()[key], value), key
    fresh = make().state_dict()
    for key, value in net.state_dict().items():
        if fresh[key].is_floating_point():
            assert value.mean().item() == pytest.approx(fresh[key].mean().item(), abs=0.6), key


def test_renewal_is_a_matter_of_the_seed_and_leaves_the_global_stream_alone():
    net, before = DCGAN((1, 8, 8), 8, 8), torch.get_rng_state()
    weights = []
    for number in (0, 0, 1):
        renew(net, 0, "generator", number)
        weights.append(net.project.weight.detach().clone())
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_renewing_the_first_layers_leaves_the_others():
    net = DCGAN((1, 8, 8), 8, 8)
    with torch.no_grad():
        net.paint[0].weight.add_(1.0)
        net.paint[2].weight.add_(1.0)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    renew_first(net, 0, "reset")
    changed = {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"project.weight", "project.bias", "paint.0.weight"}


class Stubborn(nn.Module):
    """Has a parameter that nothing resets."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


def test_a_part_that_cannot_be_renewed_is_named():
    check_renewable(DCGAN((1, 8, 8), 8, 8))
    with pytest.raises(ValueError, match=r"part '1' \(Stubborn\).*no reset_parameters"):
        check_renewable(nn.Sequential(nn.Linear(2, 2), Stubborn()))
