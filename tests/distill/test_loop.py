import pytest
import torch
from on_device import agree

from dfkd.defenses import ABD, DHBE, ATEsc, Defense, PGDFlip
from dfkd.distill import KL, Distillation, Student
from dfkd.domains import to_float
from dfkd.errors import NonFiniteLoss
from dfkd.evaluate import Examiner
from dfkd.models import DCGAN, cnn_bn
from dfkd.pool import Pool, Split
from dfkd.priors import BatchNormPrior, Prior
from dfkd.recipe import Recipe
from dfkd.scenarios import none
from dfkd.synthesizers import DFQ, NoiseImages, RealImages

SEEDS = {"student": 0, "synthesis": 0}


def finished_pool(synthesizer, teacher, runtime, defense=None) -> Pool:
    synthesizer.start(runtime, 0)
    images = synthesizer.synthesize(range(synthesizer.rounds), teacher).images
    pool, pixels = Pool(), to_float(images)
    split = (defense or Defense()).split(teacher, pixels, teacher(pixels), torch.Generator().manual_seed(0))
    pool.add(images, teacher.predict(pixels), split)
    return pool


def make(synthesizer, teacher, domain, runtime, pool=None, defense=None, checks=2, lr=0.1, **student):
    torch.manual_seed(1)
    student = {"epochs": 10} | student if pool is not None else {"steps": 2} | student
    recipe = Recipe(lr=lr, batch_size=64)
    examiner, log = Examiner(teacher, none(domain), runtime), []
    work = Distillation(
        Student(cnn_bn((1, 8, 8), 10, widths=(8, 16)), recipe, KL(), **student),
        synthesizer,
        defense or Defense(),
        teacher,
        examiner,
        runtime,
        pool,
        SEEDS,
        checks,
        lambda number, metrics: log.append((number, metrics)),
    )
    return work, log


def dfq(rounds=3) -> DFQ:
    torch.manual_seed(0)
    generator = DCGAN((1, 8, 8), latent=8, width=8)
    return DFQ(generator, Prior({"bn": BatchNormPrior()}), rounds, steps=2, batch_size=16, images=10)


def test_distilling_from_the_real_images_learns_the_digits(teacher, small_digits, runtime, unchanged):
    check, real = unchanged(teacher), RealImages(small_digits.train)
    work, log = make(real, teacher, small_digits, runtime, finished_pool(real, teacher, runtime))
    work.run()
    check()
    assert work.rounds == 10 and work.steps == len(small_digits.train) // 64
    assert work.validation["iacc"] > 90
    assert work.validation["agreement"] > 90
    assert work.best["iacc"] >= log[0][1]["val/iacc"]
    assert log[-1][1]["loss/kd"] < 0.3 * log[0][1]["loss/kd"]


def test_distilling_from_noise_learns_less_than_from_the_real_images(teacher, small_digits, runtime):
    noise = NoiseImages((1, 8, 8), rounds=4, batch_size=250)
    work, _ = make(noise, teacher, small_digits, runtime, finished_pool(noise, teacher, runtime), epochs=3)
    work.run()
    assert work.validation["iacc"] < 90


def test_an_online_run_grows_the_pool_and_counts_its_teachers_evaluations(teacher, small_digits, runtime, unchanged):
    check = unchanged(teacher)
    work, log = make(dfq(), teacher, small_digits, runtime)
    shown = []
    work.run(shown.append)
    check()
    assert len(work.pool) == 30 and len(shown) == 3
    assert work.evals() == {"synthesis": 3 * 2 * 16, "split": 0, "distill": 30}
    assert work.fragile_share == 1.0
    assert torch.allclose(work.pool.logits, teacher.predict(work.pool.pixels()), atol=1e-5)
    assert {"loss/kd", "bn", "one_hot", "adversarial", "fragile_share", "val/iacc"} <= set(log[-1][1])
    assert set(work.clock.read()) == {"synthesis", "split", "distill", "evaluate"}


def test_an_online_pool_keeps_the_newest_images(teacher, small_digits, runtime):
    work, _ = make(dfq(), teacher, small_digits, runtime, capacity=14)
    work.run()
    assert len(work.pool) == 14


def test_the_attacks_evaluations_are_counted_apart_and_the_generator_is_steered(teacher, small_digits, runtime):
    criterion = PGDFlip(eps=16 / 255, steps=2, box=(0.0, 1.0))
    work, log = make(dfq(), teacher, small_digits, runtime, defense=ATEsc(criterion))
    work.run()
    evals = work.evals()
    assert evals["synthesis"] == 3 * 2 * 16 and evals["distill"] == 30
    images = 3 * (2 * 16 + 10)  # steered and split
    assert 2 * images <= evals["split"] <= 4 * images + 64
    assert work.fragile_share == pytest.approx(work.pool.split.fragile.float().mean().item())
    assert "loss/forget" in log[-1][1]


def test_a_defense_adds_its_term_and_finishes_the_student(teacher, small_digits, runtime, unchanged):
    check = unchanged(teacher)
    work, log = make(dfq(), teacher, small_digits, runtime, defense=ABD(steps=2, batch_size=16, inner_steps=2))
    work.run()
    check()
    assert [number for number, _ in log] == [0, 1, 2, 3]  # three rounds, and the finish
    assert log[0][1]["defense"] < 0
    assert "defense" not in log[3][1] and "retrospection/kd" in log[3][1]
    assert work.evals()["synthesis"] == 3 * 2 * 16 * 4  # the teacher and its three shuffled copies
    again = work.examiner(work.model, "val")
    assert {name: again[name] for name in work.validation} == work.validation  # of the finished student
    assert log[3][1]["val/iacc"] == again["iacc"]


def test_a_defense_adds_its_term_to_the_students_loss_at_no_evaluation(teacher, small_digits, runtime):
    evals = []
    for defense in (Defense(), DHBE((1, 8, 8), latent=8, width=4, every=2)):
        work, log = make(dfq(), teacher, small_digits, runtime, defense=defense)
        work.run()
        evals.append(work.evals())
    assert work.trainer.defense_term.calls == 3 * 2  # rounds and steps
    assert log[-1][1]["loss/defense"] > 0
    assert evals[0] == evals[1]


def test_defenses_that_do_neither_leave_the_loop_as_it_was(teacher, small_digits, runtime):
    work, log = make(dfq(), teacher, small_digits, runtime)
    work.run()
    assert work.synthesizer.term is None and len(log) == 3
    assert all("defense" not in metrics for _, metrics in log)


def test_a_finished_pools_split_is_the_fragile_share(teacher, small_digits, runtime):
    real = RealImages(small_digits.train)
    pool = finished_pool(real, teacher, runtime)
    pool.split = Split(torch.arange(len(pool)) % 4 == 0, pool.split.score)
    work, _ = make(real, teacher, small_digits, runtime, pool, epochs=1)
    assert work.fragile_share == pytest.approx(0.25, abs=0.01)


def test_the_best_state_is_that_of_the_best_validation(teacher, small_digits, runtime):
    real = RealImages(small_digits.train)
    pool = finished_pool(real, teacher, runtime)
    work, log = make(real, teacher, small_digits, runtime, pool, checks=10, epochs=5)

    def spoil(shown: dict) -> None:
        if len(log) == 3:
            pool.logits *= -1  # from here on it gets worse

    work.run(spoil)
    seen = [metrics["val/iacc"] for _, metrics in log]
    assert len(seen) == 5
    assert max(seen) > seen[-1]
    assert work.validation["iacc"] == seen[-1]
    assert work.best["iacc"] == max(seen)
    assert work.best["round"] == seen.index(max(seen))
    work.model.net.load_state_dict(work.best["state"])
    again = Examiner(teacher, none(small_digits), runtime)(work.model, "val")
    assert again["iacc"] == max(seen)


def test_the_same_seeds_give_the_same_student(teacher, small_digits, runtime):
    weights = []
    for _ in range(2):
        work, _ = make(dfq(), teacher, small_digits, runtime)
        with torch.random.fork_rng():
            work.run()
        weights.append(torch.cat([p.detach().flatten() for p in work.model.parameters()]))
    assert agree(*weights)


def test_a_diverging_run_stops_with_the_terms_name_and_a_finite_state(teacher, small_digits, runtime):
    real = RealImages(small_digits.train)
    pool = finished_pool(real, teacher, runtime)
    work, _ = make(real, teacher, small_digits, runtime, pool)

    def break_it(shown: dict) -> None:
        pool.logits[:] = float("inf")

    with pytest.raises(NonFiniteLoss, match="'kd'") as caught:
        work.run(break_it)
    assert all(value.isfinite().all() for value in caught.value.state.values())


def test_warm_up_rounds_make_images_and_train_nothing(teacher, small_digits, runtime):
    synthesizer = dfq(rounds=5)
    synthesizer.warm_up = 3
    work, _ = make(synthesizer, teacher, small_digits, runtime)
    trained, steps = work.trainer.train, []
    work.trainer.train = lambda pool, count: (steps.append((len(pool), count)), trained(pool, count))
    work.run()
    assert steps == [(40, 2), (50, 2)]
    assert work.trainer.stepper.lr == pytest.approx(0.0, abs=1e-6)  # the schedule is as long as the training


def test_the_answers_to_augmented_views_are_counted(teacher, small_digits, runtime):
    work, _ = make(dfq(), teacher, small_digits, runtime, augment="shift")
    work.run()
    assert work.evals()["distill"] == 30 + 2 * (10 + 20 + 30)
