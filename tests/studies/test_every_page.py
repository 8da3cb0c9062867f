"""Every page that is made of results alone, from the cells of its preset with numbers of our own."""

import importlib
from types import SimpleNamespace

import pytest
import torch
from continual import cell_of
from runner import a_few, composed
from studies import continual, flip_radius, judge, leakage, parts, robustness, scenarios, trap_images
from test_presets import cells

from dfkd.report.runs import Run


def finished(cell) -> Run:
    """A finished cell with made-up numbers: undefended students are better, and every cell a little different."""
    seed, config = cell.config["seed"], cell.config
    better = 10 * (config["defense"]["name"] == "none") + int(cell.hash, 16) % 9
    student = {
        "iacc": 70.0 + better + seed,
        "agreement": 71.0 + seed,
        "oacc": 30.0,
        "asr": 50.0 + 7 * seed,
        "olacc": 60.0,
    }
    teacher = {"iacc": 99.0 - seed, "oacc": 12.0, "asr": 100.0, "olacc": 100.0}
    for key in config["metrics"] or ():
        student[key], teacher[key] = 40.0 + seed, 50.0 - seed
    evals = {"synthesis": 1000 * config["synthesizer"].get("rounds", 1), "split": 0, "distill": 10}
    near = {"nearer_train": 0.7 + 0.01 * seed, "expected": 0.6, "interval": [0.5, 0.7 - 0.1 * seed], "p": 0.001}
    near["membership_auroc"] = 0.5
    result = {
        "leakage": {"pixels": near, "features": near},
        "student": student,
        "teacher": teacher,
        "teacher_evals": evals,
        "fragile_share": 0.5,
        "derived": {"on_few": 0.5},
        "seconds_this_run": 9.0,
    }
    return Run(cell.name, None, "done", config, result)


PAGES = {  # what a page says of the cells of its preset
    "parts": ["| the whole recipe", "| no contrast, no prior, groups of 2", "falling step size x prior", "class term"],
    "weights": ["| contrast: synthesizer.contrast_weight", "| class x TV", "| langevin, 4 decades"],
    "queries": ["| cake_fast", "| real", "| 18,010"],
    "criteria": ["**close_set**", "| undefended", "| oracle"],
    "generators": ["| dfq, resnet_cbn", "| deepinversion, no generator"],
    "transformers": ["**ViT -> ViT**", "| dfq (balance, patch_entropy)", "**CNN -> CNN**", "| dfq (bn, balance)"],
    "robustness": ["| clean           | teacher", "| label noise 0.2 | cake", "on textured", "| imbalance 20"],
    "leakage": ["| memorised | fast", "| 0.50 to 0.65", "| teacher membership AUROC", "| images of"],
    "text": ["| cake_2d, weights x 1000, no contrast", "| noise_images"],
    "escape": [
        "**open_set**",
        "| escape, no audit, no carriers",
        "| escape, no copy",
        "| escape_random",
        "| escape, radius 5/255",
        "| dhbe",
    ],
    "halves": ["**open_set**", "| forgetting alone", "| backdoor, ASR", "| all scenarios, ASR or OLAcc | 6"],
}


@pytest.mark.parametrize("name", a_few(PAGES, "parts", "halves", "robustness"))
def test_a_page_shows_every_group_of_its_preset(name, tmp_path):
    found = [finished(cell) for cell in cells(f"ablation=study/{name}", "seed=0,1", f"outputs={tmp_path}")]
    page = importlib.import_module(f"studies.{name}").page(found)
    for words in PAGES[name]:
        assert words in page.text, words
    assert page.figure.axes and "nan" not in page.text


def test_a_group_that_a_panel_lacks_is_in_the_legend_and_has_one_colour(tmp_path):
    found = [finished(cell) for cell in cells("ablation=study/halves", "seed=0", f"outputs={tmp_path}")]
    last = scenarios.scenario(found[-1])
    some = [run for run in found if (scenarios.scenario(run), run.config["defense"]["name"]) != (last, "ckd")]
    figure = scenarios.picture(some, lambda run: run.config["defense"]["name"])
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {
        "none",
        "ckd",
        "forgetting",
        "atesc",
        "teacher",
    }
    colours = [{line.get_label(): line.get_color() for line in axes.lines} for axes in figure.axes]
    assert len({panel["atesc"] for panel in colours}) == 1 and "ckd" not in colours[-1]


def test_a_cell_is_named_by_what_it_lacks(tmp_path):
    lacking = ["synthesizer.contrast_weight=0", "noise=constant", "prior=none", "synthesizer.groups=2"]
    (cell,) = cells("experiment=cake/digits", *lacking, f"outputs={tmp_path}")
    run = finished(cell)
    assert parts.combination(run) == "no contrast, no falling step size, no prior, groups of 2"
    assert parts.is_in_design(run)


def test_an_ntl_teacher_with_a_large_weight_is_called_firm():
    run = SimpleNamespace(config={"teacher": {"name": "ntl", "alpha": 1.0}})
    assert trap_images.teacher(run) == "ntl, firm"
    run.config["teacher"]["alpha"] = 0.1
    assert trap_images.teacher(run) == "ntl"


def test_the_share_judged_ood_is_what_the_judge_does_not_call_id():
    run = Run("a", None, "done", {"seed": 3}, {"fragile_share": 0.25})
    assert trap_images.ood_share([run]) == {3: 75.0}


def test_a_radius_that_tells_id_from_ood_is_right_at_a_radius_between_them():
    radius, is_id = torch.tensor([0.01, 0.02, 0.5, 0.6]), torch.tensor([True, True, False, False])
    assert judge.auroc(-radius, is_id) == 1.0 and judge.auroc(radius, is_id) == 0.0
    assert [flip_radius.balanced_accuracy(radius, is_id, eps) for eps in (0.001, 0.015, 0.1, 1.0)] == [50, 75, 100, 50]


def test_chains_are_told_apart_and_come_to_accuracy_and_forgetting(tmp_path):
    """A learner of task t gets 90 - 10 (t - k) % of task k, and with `joint` 95 % of all."""
    options = [f"outputs={tmp_path}"]
    found = []
    for name, file in (("dfq", "samples.safetensors"), ("nothing", None), ("joint", None)):
        for task in range(5):
            memory = [f"teacher.memory_path={file}"] if file and task else []
            config = cell_of(name, "digits", task, 3, tmp_path, [*options, *memory]).config
            learned = {f"task_{k}": 95.0 if name == "joint" else 90.0 - 10 * (task - k) for k in range(task + 1)}
            result = {"teacher": learned, "derived": {"remembered": 100.0 - task}}
            found.append(Run(f"{name}_{task}", None, "done", config, result))
    assert [continual.method(run) for run in found] == ["dfq"] * 5 + ["nothing"] * 5 + ["joint"] * 5
    made = {run.name: run.result["student"] for run in continual.chains(found)}
    assert made["joint"]["average"] == 95 and made["joint"]["mean_forgetting"] == 0
    assert made["nothing"]["average"] == 70
    assert made["dfq"]["remembered"] == 97.5 and "remembered" not in made["nothing"]
    assert [made["nothing"][f"forgetting_{k}"] for k in range(4)] == [40, 30, 20, 10]
    page = continual.page(found)
    assert "| mean forgetting - nothing" in page.text and page.figure.axes
    assert continual.chains(found[1:5]) == []  # a chain that has not ended


def test_a_chain_of_cake_is_named_by_a_weight_that_is_not_its_presets(tmp_path):
    for words, name in (([], "cake"), (["synthesizer.contrast_weight=0"], "cake, contrast weight 0")):
        config = cell_of("cake", "digits", 0, 0, tmp_path, words).config
        assert continual.method(Run("a", None, "done", config)) == name


def test_differences_over_all_scenarios_are_of_one_scenario_and_seed():
    def run(scenario, group, seed, iacc, trap):
        result = {"student": {"iacc": iacc, "asr": trap, "olacc": trap}}
        return Run(group, None, "done", {"seed": seed, "ntl_scenario": {"name": scenario}}, result)

    found = [
        run(name, "pgd", seed, base, 50.0) for name, base in (("backdoor", 20.0), ("open_set", 80.0)) for seed in (0, 1)
    ]
    found += [
        run("backdoor", "mine", 0, 21.0, 40.0),
        run("open_set", "mine", 0, 83.0, 20.0),
        run("open_set", "mine", 7, 1, 1),
    ]
    text = scenarios.pooled(found, lambda run: run.name, "pgd")
    assert "| mine | 2     | +2.0 (-10.7 to +14.7)" in text and "| -20.0 (-147.1 to +107.1)" in text
    assert scenarios.pooled(found[:2], lambda run: run.name, "pgd") == ""


def test_a_study_of_leakage_compares_with_chance_and_of_robustness_names_the_flaws():
    runs = [
        Run("a", None, "done", {"seed": seed}, {"leakage": {"pixels": {"nearer_train": share, "expected": 0.7}}})
        for seed, share in ((0, 0.9), (1, 0.6))
    ]
    assert leakage.above_chance(runs) == [pytest.approx(20), pytest.approx(-10)]
    run = SimpleNamespace(config={"ntl_scenario": {"id": {"label_noise": 0.2, "imbalance": 20}}})
    assert robustness.teacher(run) == "label noise 0.2, imbalance 20"


def test_a_method_has_one_colour_in_all_panels():
    def run(accuracy):
        curve = {"iacc": accuracy} | {f"pgd_{radius}": accuracy - radius for radius in robustness.RADII}
        config = {"seed": 0, "metrics": composed("metrics=[robustness]")["metrics"]}
        return Run("a", None, "done", config, {"student": curve, "teacher": curve})

    clean, mislabelled = {"real": [run(99)], "cake": [run(80)], "dfq": [run(95)]}, {"real": [run(97)], "dfq": [run(90)]}
    panels = robustness.picture({"clean": clean, "mislabelled": mislabelled}).axes
    colours = [{line.get_label(): line.get_color() for line in panel.lines} for panel in panels]
    assert colours[0]["dfq"] == colours[1]["dfq"] != colours[0]["cake"]
