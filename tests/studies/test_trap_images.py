"""The pages that ask the judge, from a run of seconds: teacher, samples and domains are read back from its files."""

import pytest
from runner import NOISE, run
from studies import flip_radius, pages, trap_images
from studies.judge import bench

pytestmark = pytest.mark.exhaustive  # a judge is trained for each


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """A finished cell whose noise images a judge looks at."""
    outputs = tmp_path_factory.mktemp("observed")
    run(outputs, *NOISE, "ntl_scenario=close_set", "defense=observe")
    finished, others = pages.study_cells(outputs)
    assert len(finished) == 1 and not others
    return finished


def test_the_judge_is_trained_again_and_says_of_the_samples_what_it_said_in_the_run(cells):
    built = bench(cells[0])
    for name, judged_id in (("fragile", True), ("robust", False)):
        if name in built.samples:
            assert ((built.log_odds(built.samples[name]) > 0) == judged_id).all()
    images, is_id = built.real(100)
    assert is_id.sum() == 100 and len(images) == 200 and 0 <= built.auroc() <= 1


def test_both_pages_are_made_of_it(cells, monkeypatch):
    monkeypatch.setattr(flip_radius, "REAL", 10)
    shares = trap_images.page(cells)
    assert "| noise_images | supervised | 1 |" in shares.text and "AUROC on real test images" in shares.text
    radii = flip_radius.page(cells)
    assert "| supervised | real test images | 1 |" in radii.text and "| supervised | noise_images" in radii.text
