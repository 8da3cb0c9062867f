"""What holds for every shipped trigger in the backdoor scenario, and for the teachers that are poisoned with it."""

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from shipped import build, config, options

from dfkd.domains import digits
from dfkd.evaluate import Examiner
from dfkd.models import Classifier, cnn_bn
from dfkd.recipe import Recipe
from dfkd.scenarios import backdoor
from dfkd.teachers import Backdoor
from dfkd.teachers.backdoor import poisoned

EVERY = options("trigger")
TARGET = 3


@pytest.fixture(scope="module")
def trigger(tmp_path_factory):
    """Make a shipped trigger; the user's own image is a grey square with a transparent half."""
    file = tmp_path_factory.mktemp("trigger") / "mine.png"
    rgba = np.full((8, 8, 4), 200, np.uint8)
    rgba[:, :4, 3] = 0
    Pillow.fromarray(rgba).save(file)

    def make(name: str):
        mine = (f"ntl_scenario.trigger.path={file}",) if name == "image" else ()
        node = config("ntl_scenario=backdoor", f"trigger@ntl_scenario.trigger={name}", *mine)
        return build(node["ntl_scenario"]["trigger"], "trigger")

    return make


@pytest.fixture(scope="module")
def domain():
    """Make the digits of 16 pixels with the given channels."""
    return {channels: digits(size=16, channels=channels) for channels in (1, 3)}.get


def test_the_required_triggers_are_there():
    required = "badnet_sq badnet_grid blend sig trojan_3x3 trojan_8x8 l0 l2 smooth image"
    assert set(required.split()) <= set(EVERY)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", EVERY)
def test_it_is_stamped_on_every_split_before_any_normalisation(name, channels, trigger, domain):
    clean = domain(channels)
    scenario = backdoor(clean, trigger(name), TARGET)
    for split in ("train", "val", "test"):
        before, after = getattr(clean, split), getattr(scenario.ood, split)
        assert after.x.dtype == before.x.dtype == torch.uint8 and after.x.shape == before.x.shape
        assert torch.equal(after.y, before.y)  # true labels stay: accuracy on triggered images is measured, too
        assert (after.x != before.x).flatten(1).any(1).float().mean() > 0.9
    assert scenario.ood.mean == clean.mean and scenario.ood.std == clean.std
    assert scenario.ood_label == TARGET and scenario.backdoor


@pytest.mark.parametrize("clean_label", [False, True])
@pytest.mark.parametrize("name", EVERY)
def test_a_tenth_is_poisoned_of_the_others_or_cleanly_of_the_target(name, clean_label, trigger, domain):
    scenario = backdoor(domain(1), trigger(name), TARGET)
    rate = 0.05 if clean_label else 0.1  # a tenth of the images are of the target
    found = poisoned(scenario, rate, clean_label)
    total = len(scenario.id.train)
    assert len(found.ood.train) == round(rate * total) and len(found.id.train) + len(found.ood.train) == total
    assert set(found.ood.train.y.eq(TARGET).tolist()) == {clean_label}
    assert torch.equal(found.ood.test.x, scenario.ood.test.x)


@pytest.mark.parametrize("name", EVERY)
def test_a_poisoned_teacher_takes_a_step_and_is_judged_on_the_other_classes(name, trigger, domain, runtime):
    scenario = backdoor(domain(1), trigger(name), TARGET)
    kind = Backdoor(cnn_bn((1, 16, 16), 10, widths=(4, 8)), Recipe(batch_size=256), epochs=1, poison_rate=0.1)
    kind.check(scenario)
    losses = []
    teacher = kind.train(scenario, runtime, 0, lambda epoch, metrics: losses.append(metrics["loss/ood"]))
    assert len(losses) == 1 and losses[0] > 0
    always = Classifier(Always(TARGET), (1, 16, 16), 10, [0.0], [1.0])
    examiner = Examiner(always, scenario, runtime)
    assert examiner(always, "test")["asr"] == 100.0
    asr = examiner(teacher, "test")["asr"]
    others = scenario.ood.test.take(scenario.ood.test.y != TARGET)
    share = (teacher.predict(others.pixels()).argmax(1) == TARGET).float().mean().item()
    assert asr == pytest.approx(100 * share, abs=0.01)


class Always(torch.nn.Module):
    """Calls everything one class."""

    def __init__(self, label: int):
        super().__init__()
        self.label = label

    def forward(self, x):
        logits = torch.zeros(len(x), 10)
        logits[:, self.label] = 1.0
        return logits
