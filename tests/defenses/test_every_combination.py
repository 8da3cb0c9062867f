"""Any criterion, by flip, value or quantile, with any way to forget, on images of any synthesizer: one step each."""

import pytest
import torch
from runner import a_few
from shipped import build, config, options, synthesizer

from dfkd.defenses import ATEsc
from dfkd.distill import Student
from dfkd.distill.losses import KL
from dfkd.distill.trainer import Trainer
from dfkd.domains import Images
from dfkd.models import Classifier, cnn_bn
from dfkd.pool import Pool
from dfkd.recipe import Recipe

# Without options that only change another one's numbers.
SYNTHESIZERS = [name for name in options("synthesizer") if not name.startswith(("cake_", "dafl_"))] + ["cake_generator"]
# Thresholds that fit the scale of a score.
VALUES = dict(pgd=1.0, fgsm=1.0, entropy=1.0, confidence=0.7, margin=2.0, feature_distance=0.5, oracle=0.0)
CRITERIA = [(name, "value") for name in VALUES] + [(name, "quantile") for name in VALUES]
CRITERIA += [
    (name, "as is") for name in options("criterion") if name not in VALUES or name in ("pgd", "fgsm")
]  # by flip
FORGET = ("unlikelihood", "kl", "none")


@pytest.fixture
def criterion(small_digits):
    """Make a shipped criterion, thresholded as asked."""

    def make(name: str, how: str):
        node = config("defense=atesc", f"criterion@defense.criterion={name}")["defense"]["criterion"]
        if how in ("value", "quantile"):
            node |= {"value": None, "quantile": None} | {how: VALUES[name] if how == "value" else 0.5}
        real = small_digits.train.take(slice(0, 50))
        return build(node, "criterion", real=real, real_ood=Images(255 - real.x, real.y), chunk=1000)

    return make


@pytest.mark.parametrize(("name", "how"), CRITERIA)
@pytest.mark.parametrize("method", a_few(SYNTHESIZERS, "cake", "dfq", "cmi"))
def test_the_student_takes_a_step(method, name, how, criterion, teacher, small_digits, runtime, unchanged, random):
    check = unchanged(teacher)
    context = {"shape": (1, 8, 8), "classes": 10, "box": (0.0, 1.0), "real": small_digits.train.take(slice(0, 40))}
    torch.manual_seed(0)
    ready, decides = synthesizer(method, **context), criterion(name, how)
    decides.check(teacher.net)
    ready.start(runtime, 0)
    recipe = Recipe(batch_size=8)
    with torch.random.fork_rng():
        model = Classifier(cnn_bn((1, 8, 8), 10, widths=(4, 8)), (1, 8, 8), 10, [0.3], [0.4])
    steer = ATEsc(decides).steer(teacher, random)
    batch = ready.synthesize(range(1), teacher, model, steer if ready.online else None)
    pool = Pool()
    images = batch.images if batch.images.is_floating_point() else batch.images / 255
    logits = teacher.predict(images)
    for forget in FORGET:
        defense = ATEsc(decides, forget=forget, weight=0.5)
        defense.check(teacher.net, ready)
        split = defense.split(teacher, images, logits, random)
        assert split.fragile.shape == split.score.shape == (len(images),) and split.fragile.dtype == torch.bool
        if how == "quantile":
            assert split.fragile.sum() == round(0.5 * len(images))
        pool.images = None
        pool.add(batch.images, logits, split)
        student = Student(model.net, recipe, KL(), steps=1)
        trainer = Trainer(model, student, defense, runtime, 0, 1, teacher)
        before = trainer.weights()
        trainer.train(pool, 1)
        terms = trainer.read()
        assert set(terms) == ({"kd"} if forget == "none" else {"kd", "forget"})
        assert any(not torch.equal(value, before[key]) for key, value in trainer.weights().items())
    check()
