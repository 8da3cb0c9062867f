import contextlib
from dataclasses import replace

import pytest
import torch
from fake_graphs import FakeGraphs, graphs_everywhere

from dfkd.defenses import All, ATEsc, Defense
from dfkd.distill import KL, CrossEntropy, Student, Trainer, steps_per_epoch
from dfkd.errors import NonFiniteLoss
from dfkd.machine.capture import WARM_UP, CapturedStep
from dfkd.models import Classifier, Teacher, cnn_bn, mlp
from dfkd.pool import Pool, Split
from dfkd.recipe import Recipe
from dfkd.training.augment import augment, draw


def pool_of(count=20, classes=3, fragile=None, seed=0) -> Pool:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 1, 2, 1, generator=generator)
    logits = torch.stack([5 * images[:, 0, 0, 0], 5 * images[:, 0, 1, 0], torch.full((count,), 2.0)], 1)[:, :classes]
    pool = Pool()
    split = Split.everything(images)
    if fragile is not None:
        split.fragile = fragile
    pool.add(images, logits, split)
    return pool


def make(runtime, loss=None, defense=None, steps=100, **recipe) -> Trainer:
    torch.manual_seed(0)
    defaults = {"optimizer": "adam", "lr": 1e-2, "batch_size": 8, "schedule": "constant", "weight_decay": 0.0}
    options = Recipe(**(defaults | recipe))
    student = Student(mlp((1, 2, 1), 3), options, loss or KL(), epochs=1)
    model = Classifier(student.network, (1, 2, 1), 3, [0.5], [0.3])
    return Trainer(model, student, defense or Defense(), runtime, 0, steps)


def test_batches_go_through_the_pool_without_repetition(runtime):
    trainer = make(runtime, batch_size=6)
    batches = [trainer.next_index(pool_of(20)) for _ in range(7)]
    assert [len(b) for b in batches] == [6] * 7
    for start in (0, 3):
        one_pass = torch.cat(batches[start : start + 3])
        assert len(one_pass.unique()) == 18  # the ragged rest is left out
    assert not torch.equal(batches[0], batches[3])


def test_a_pool_smaller_than_the_batch_is_one_batch(runtime):
    trainer = make(runtime, batch_size=64)
    batches = [trainer.next_index(pool_of(5)) for _ in range(3)]
    assert [sorted(b.tolist()) for b in batches] == [[0, 1, 2, 3, 4]] * 3


@pytest.mark.parametrize(("count", "expected"), [(20, 2), (16, 2), (15, 1), (3, 1)])
def test_steps_per_epoch_are_the_full_batches(count, expected):
    assert steps_per_epoch(pool_of(count), Recipe(batch_size=8)) == expected


@pytest.mark.parametrize("loss", [KL(), KL(4.0), CrossEntropy("soft"), CrossEntropy("hard")])
def test_the_student_learns_the_teachers_answers(runtime, loss):
    pool, trainer = pool_of(200), make(runtime, loss, steps=300)
    trainer.train(pool, 300)
    agreement = (trainer.model.predict(pool.images).argmax(1) == pool.logits.argmax(1)).float().mean()
    assert agreement > 0.93


def test_the_loss_is_the_defenses(runtime):
    fragile = torch.arange(20) < 5
    trainer = make(runtime, defense=ATEsc(All()), batch_size=20)
    pool = pool_of(fragile=fragile)
    with torch.no_grad():
        student = trainer.model.train()(pool.images)
    expected = ATEsc(All()).loss(student, pool.logits, KL()(student, pool.logits), fragile)
    trainer.train(pool, 1)
    means = trainer.read()
    assert means == pytest.approx({name: value.item() for name, value in expected.items()}, rel=1e-4)


class Brightest(torch.nn.Module):
    """A teacher whose label is the largest of an image's first three pixels."""

    def forward(self, images):
        return images.flatten(1)[:, :3]


def test_a_view_is_robust_where_it_keeps_the_label_of_a_robust_image_in_it(runtime):
    pool, pixels = Pool(), torch.zeros(3, 1, 8, 8)
    pixels[range(3), 0, 0, range(3)] = 1.0  # image i shows label i
    split = Split.everything(pixels)
    split.fragile = torch.tensor([True, False, True])
    pool.add(pixels, pixels.flatten(1)[:, :3], split)
    teacher = Teacher(Brightest(), (1, 8, 8), 3, [0.0], [1.0])
    student = Student(mlp((1, 8, 8), 3), Recipe(batch_size=3), KL(), epochs=1, augment="cut_mix")
    model = Classifier(student.network, (1, 8, 8), 3, [0.0], [1.0])
    trainer = Trainer(model, student, Defense(), runtime, 0, 1, teacher)
    seen = set()
    for _ in range(600):
        images, logits, fragile = trainer.load_batch(pool, torch.arange(3))
        for i in range(3):
            assert torch.equal(logits[i], images[i].flatten()[:3])
            if logits[i].sum() == 1:  # one of its two images shows, and its split holds
                shown = logits[i].argmax().item()
                assert fragile[i] == split.fragile[shown]
                seen.add((i, shown))
    assert {(0, 0), (1, 1), (0, 1), (1, 0), (1, 2)} <= seen  # kept, taken over from a robust and from a fragile one
    assert teacher.evals["distill"] == 600 * 3


def test_batch_norm_of_the_student_learns_and_the_pool_stays(runtime):
    pool = Pool()
    images = torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8)
    pool.add(images, torch.randn(16, 3), Split.everything(images))
    before = {name: value.clone() for name, value in pool._tensors().items()}
    student = Student(cnn_bn((1, 8, 8), 3), Recipe(batch_size=8), KL(), epochs=1)
    model = Classifier(student.network, (1, 8, 8), 3, [0.5], [0.3]).eval()
    trainer = Trainer(model, student, Defense(), runtime, 0, 4)
    trainer.train(pool, 4)
    assert model.net.body[1].num_batches_tracked == 4
    assert all(torch.equal(value, before[name]) for name, value in pool._tensors().items())


def test_same_seed_same_student(runtime):
    weights = []
    for _ in range(2):
        trainer = make(runtime)
        trainer.train(pool_of(), 10)
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.equal(*weights)


def test_a_non_finite_loss_names_the_term_and_keeps_the_last_good_state(runtime):
    trainer = make(runtime)
    trainer.train(pool_of(), 5)
    trainer.read()
    good = {key: value.clone() for key, value in trainer.model.net.state_dict().items()}
    broken = pool_of()
    broken.logits[:] = float("nan")
    trainer.train(broken, 2)
    with pytest.raises(NonFiniteLoss, match="'kd'") as caught:
        trainer.read()
    assert caught.value.term == "kd"
    assert caught.value.state.keys() == good.keys()
    assert all(torch.equal(caught.value.state[key], good[key].cpu()) for key in good)


def test_a_state_is_kept_also_where_the_first_steps_already_fail(runtime):
    trainer, broken = make(runtime), pool_of()
    broken.logits[:] = float("nan")
    trainer.train(broken, 1)
    with pytest.raises(NonFiniteLoss) as caught:
        trainer.read()
    assert caught.value.state is not None
    assert all(value.isfinite().all() for value in caught.value.state.values())


def test_a_finite_loss_with_a_broken_gradient_does_not_pass_for_a_good_state(runtime):
    def loss(student, teacher):  # 0 with gradient 0 * inf = nan
        return (0 * student.sum(1)).sqrt()

    trainer = make(runtime, loss)
    trainer.train(pool_of(), 1)
    with pytest.raises(NonFiniteLoss) as caught:
        trainer.read()
        trainer.train(pool_of(), 1)
        trainer.read()
    assert all(value.isfinite().all() for value in caught.value.state.values())


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"epochs": 0},
        {"steps": 0},
        {"epochs": 1, "capacity": 0},
        {"epochs": 1, "keep": {"eps": [1.0]}},
        {"epochs": 1, "keep": {"eps": [2.0, 1.0]}},
        {"epochs": 1, "augment": "mixup"},
    ],
)
def test_impossible_students_are_refused(wrong):
    with pytest.raises(ValueError):
        Student(mlp((1, 2, 1), 3), Recipe(), KL(), **wrong)


def image_trainer(runtime, pool: Pool, how: str, loss=None, defense=None) -> Trainer:
    torch.manual_seed(0)
    teacher = Teacher(cnn_bn((1, 8, 8), 3, widths=(4,)), (1, 8, 8), 3, [0.5], [0.3])
    images = torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8)
    pool.add(images, teacher(images / 255), Split.everything(images))
    student = Student(cnn_bn((1, 8, 8), 3, widths=(4,)), Recipe(batch_size=8), loss or KL(), epochs=1, augment=how)
    model = Classifier(student.network, (1, 8, 8), 3, [0.5], [0.3])
    return Trainer(model, student, defense or Defense(), runtime, 0, 8, teacher)


@pytest.mark.parametrize("how", ["shift", "crop_flip"])
def test_the_teacher_answers_anew_to_the_views_that_the_student_sees(runtime, how):
    seen, answers = [], []

    def loss(student, teacher):
        answers.append(teacher)
        return KL()(student, teacher)

    pool = Pool()
    trainer = image_trainer(runtime, pool, how, loss)
    trainer.model.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    before = trainer.teacher.evals["distill"]
    trainer.train(pool, 2)
    assert trainer.teacher.evals["distill"] - before == 2 * 8
    twin = image_trainer(runtime, Pool(), how)
    for view, answer in zip(seen, answers, strict=True):
        index = twin.next_index(pool)
        assert torch.equal(view, augment(pool.pixels(index), how, *draw(how, 8, 8, twin.view_generator)))
        assert not torch.equal(view, pool.pixels(index))
        assert torch.allclose(answer, trainer.teacher.predict(view), atol=1e-5)
        assert not answer.requires_grad and not torch.allclose(answer, pool.logits[index], atol=1e-3)


@pytest.mark.parametrize(("how", "refuse"), [("black_crop_flip", None), ("cut_mix", None), ("shift", "no")])
def test_views_as_a_graph_are_the_same_views(runtime, caplog, how, refuse):
    caplog.set_level("INFO", "dfkd")
    trained = []
    for graphs in (None, FakeGraphs(refuse)):
        with graphs_everywhere(graphs) if graphs else contextlib.nullcontext():
            pool = Pool()
            trainer = image_trainer(replace(runtime, capture="graph"), pool, how)
            before = trainer.teacher.evals.copy()
            trainer.train(pool, 4)
            trainer.train(pool, 4)  # a second round replays what the first has recorded
        trained.append((trainer.weights(), trainer.teacher.evals - before, trainer.read()))
    (plain, *numbers), (fast, *others) = trained
    assert numbers == others and all(torch.equal(value, fast[name]) for name, value in plain.items())
    assert graphs.records == 2 and graphs.replays == (2 * (8 - WARM_UP) if refuse is None else 0)
    assert [line.split(":")[0] for line in caplog.messages] == (
        [] if refuse is None else ["  the student's views", "  a step of the student"]
    )


def test_only_views_that_depend_on_the_batch_alone_are_recorded(runtime):
    class Own(Defense):
        def teach(self, sources, views, logits):
            return super().teach(sources, views, logits)

    runtime = replace(runtime, capture="graph")
    with graphs_everywhere(FakeGraphs()):
        assert isinstance(image_trainer(runtime, Pool(), "shift").show, CapturedStep)
        own = image_trainer(runtime, Pool(), "shift", defense=Own())
    assert own.show == own._show


def test_without_augmentation_the_stored_answers_are_taken_and_the_teacher_is_not_asked(runtime):
    pool = Pool()
    trainer = image_trainer(runtime, pool, "none")
    before = trainer.teacher.evals.copy()
    pool.logits.zero_()
    trainer.train(pool, 1)
    assert trainer.teacher.evals == before
    assert trainer.read()["kd"] > 0


def test_augmentation_without_a_teacher_is_refused(runtime):
    student = Student(cnn_bn((1, 8, 8), 3), Recipe(), KL(), epochs=1, augment="shift")
    model = Classifier(student.network, (1, 8, 8), 3, [0.5], [0.3])
    with pytest.raises(ValueError, match="augment='shift' needs the teacher"):
        Trainer(model, student, Defense(), runtime, 0, 1)
