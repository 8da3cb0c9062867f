"""The learner of a task: what it starts from, what it minimises, and that it keeps what the last one knew."""

import pytest
import torch
import torch.nn.functional as F
from elsewhere import ELSEWHERE, elsewhere
from safetensors.torch import save_file

from dfkd.domains import Images, increment, to_float
from dfkd.evaluate import accuracy
from dfkd.models import cnn_bn
from dfkd.recipe import Recipe
from dfkd.scenarios import none
from dfkd.teachers import Incremental

WIDTHS = (8, 16)


@pytest.fixture(scope="module")
def tasks(small_digits):
    return [none(increment(small_digits, task)) for task in range(2)]


@pytest.fixture(scope="module")
def first(tasks, runtime, tmp_path_factory):
    """The first learner, and the file of its weights."""
    torch.manual_seed(0)
    model = learner(2, epochs=8).train(tasks[0], runtime, seed=0, log=lambda epoch, metrics: None)
    file = tmp_path_factory.mktemp("first") / "teacher.safetensors"
    save_file({name: value.contiguous() for name, value in model.net.state_dict().items()}, file)
    return model, str(file)


def learner(classes: int, epochs: int = 8, **options) -> Incremental:
    return Incremental(cnn_bn((1, 8, 8), classes, widths=WIDTHS), Recipe(lr=0.05, batch_size=32), epochs, **options)


def memory_of(images: Images, folder) -> str:
    """A file of images, as a pool is stored."""
    save_file({"images": images.x.contiguous()}, folder / "pool.safetensors")
    return str(folder / "pool.safetensors")


def trained(learner: Incremental, scenario, runtime):
    return learner.train(scenario, runtime, seed=0, log=lambda epoch, metrics: None)


def test_a_memory_keeps_old_classes_that_fine_tuning_forgets(tasks, first, runtime, tmp_path):
    """With real images of the old classes in the memory, which are the best that synthesis can do."""
    torch.manual_seed(0)
    old = tasks[0].id.test
    memory = memory_of(tasks[0].id.train, tmp_path)
    tuned = trained(learner(4, last_path=first[1]), tasks[1], runtime)
    kept = trained(learner(4, last_path=first[1], memory_path=memory), tasks[1], runtime)
    assert accuracy(first[0], old, runtime) > 95
    assert accuracy(tuned, old, runtime) < 30 and accuracy(kept, old, runtime) > 80
    new = tasks[1].id.test.take(tasks[1].id.test.y >= 2)
    assert min(accuracy(tuned, new, runtime), accuracy(kept, new, runtime)) > 80


def test_it_starts_from_the_last_learner(tasks, first, runtime, monkeypatch):
    seen = {}
    monkeypatch.setattr(Incremental, "descend", lambda self, training, model, loss: seen.update(net=model.net))
    made = learner(4, last_path=first[1])
    fresh = made.network.head.weight[2:].detach().clone().to(runtime.device)
    trained(made, tasks[1], runtime)
    own, last = seen["net"].state_dict(), first[0].net.state_dict()
    for name, value in last.items():
        assert torch.equal(own[name][: len(value)] if name.startswith("head.") else own[name], value), name
    assert torch.equal(own["head.weight"][2:], fresh)


def test_the_loss_on_the_memory_is_the_last_learners_answer_with_nothing_for_new_classes(
    tasks, first, runtime, tmp_path
):
    memory = memory_of(tasks[0].id.train, tmp_path)
    made = learner(4, epochs=1, last_path=first[1], memory_path=memory, memory_weight=3.0)
    model = trained(made, tasks[1], runtime)
    batch = tasks[1].id.train.take(slice(0, 8)).to(runtime.device)
    batch = Images(to_float(batch.x), batch.y)
    made.draws = torch.Generator().manual_seed(5)
    terms = made.loss(model, batch, None, None)
    index = torch.randint(len(tasks[0].id.train), (8,), generator=torch.Generator().manual_seed(5))
    images = tasks[0].id.train.pixels(index)
    wanted = F.pad(first[0].predict(images).softmax(1), (0, 2))
    expected = -3 * (wanted * model.predict(images).log_softmax(1)).sum(1).mean()
    assert terms["memory"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert terms["new"].item() == pytest.approx(F.cross_entropy(model.predict(batch.x), batch.y).item(), rel=1e-4)


def test_training_that_has_moved_the_network_to_a_gpu_can_make_the_last_learner(tasks, first):
    with elsewhere():
        made = learner(4, last_path=first[1])
        made.network.to(ELSEWHERE)
        assert made.last_learner(tasks[1]).mean.device.type == "cpu"


def test_a_checkpoint_leaves_out_what_the_files_hold(tasks, first, tmp_path):
    made = learner(4, last_path=first[1], memory_path=memory_of(tasks[0].id.train, tmp_path))
    assert made.memory is not None and not {"memory", "targets", "last_weights"} & made.checkpoint_state().keys()


def test_files_that_do_not_fit_are_refused(tasks, first, tmp_path):
    with pytest.raises(ValueError, match="memory_path needs last_path"):
        learner(4, memory_path="pool.safetensors")
    with pytest.raises(ValueError, match="last_path: there is no file none"):
        learner(4, last_path="none")
    with pytest.raises(ValueError, match="holds no images"):
        learner(4, last_path=first[1], memory_path=first[1])
    with pytest.raises(ValueError, match="memory_weight must be at least 0"):
        learner(4, last_path=first[1], memory_weight=-1)
    with pytest.raises(ValueError, match="is of 2 classes, and must be of fewer than the 2 of 'digits_task_0'"):
        learner(2, last_path=first[1]).check(tasks[0])
    other = Images(torch.zeros(3, 1, 4, 4), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="images of memory_path are"):
        learner(4, last_path=first[1], memory_path=memory_of(other, tmp_path)).check(tasks[1])
    made = Incremental(cnn_bn((1, 8, 8), 4, widths=(8, 8)), Recipe(), 1, last_path=first[1])
    with pytest.raises(ValueError, match="do not fit the network"):
        made.check(tasks[1])
