"""until=audit: a stage like the others."""

import pytest
from runner import NOISE, make_cell, run

from dfkd.audit import Looks, judge
from dfkd.errors import ConfigError
from dfkd.report.runs import read
from dfkd.report.teachers import teacher_table
from dfkd.stages.prepare import prepare
from dfkd.store.store import Store

LITTLE = ("stages.audit.images=2", "stages.audit.steps=2", "stages.audit.carrier_steps=2", "stages.audit.scouts=6")
MLP = ("data.limit=40", "network@teacher.network=mlp", "network@student.network=mlp")


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """The folder of the outputs, and the result of a cell that ends with an audit."""
    outputs = tmp_path_factory.mktemp("audited")
    return outputs, run(outputs, *NOISE, *MLP, *LITTLE, "until=audit")


def test_the_result_holds_the_verdict_and_the_folder_its_page(audited):
    outputs, result = audited
    assert set(result["stages"]) == {"teacher", "judgement", "audit"}
    found = result["audit"]
    assert 0 <= found["probability"] <= 1 and found["suspect"] in range(10)
    assert found["images_shown"] > 0 and "teacher_evals" not in result
    (page,) = outputs.glob("runs/*/audit.html")
    assert f"class {found['suspect']}" in page.read_text().lower()


def test_another_run_takes_the_looks_from_the_store(audited):
    outputs, result = audited
    again = run(outputs, *NOISE, *MLP, *LITTLE, "until=audit", "evaluate.checks=3")
    assert again["stages"]["audit"] == result["stages"]["audit"] | {"reused": True}
    assert again["audit"] == result["audit"]


def test_the_verdict_can_be_made_again_of_what_is_stored(audited):
    outputs, result = audited
    meta = Store(outputs / "store").find("audit", result["stages"]["audit"]["key"]).meta
    assert judge(Looks(**meta["looks"])).probability == result["audit"]["probability"]


def test_the_table_of_teachers_has_a_column(audited):
    outputs, _ = audited
    folder = next(outputs.glob("runs/*/audit.html")).parent
    assert " audit " in teacher_table([read(folder)])


def test_its_options_are_in_its_key_and_not_in_the_hash_of_the_cell(tmp_path):
    from dfkd.stages.stage import planned_stages

    cells = [make_cell(tmp_path, *NOISE, *MLP, "until=audit", f"stages.audit.images={n}") for n in (2, 3)]
    assert cells[0].hash == cells[1].hash == make_cell(tmp_path, *NOISE, *MLP).hash
    keys = [planned_stages(cell, prepare(cell))["audit"].key for cell in cells]
    assert keys[0] != keys[1]


def test_it_is_made_on_the_way_to_a_student_where_that_is_asked_for(tmp_path):
    from dfkd.stages.stage import planned_stages

    for always in ("true", "false"):
        cell = make_cell(tmp_path, *NOISE, *MLP, f"stages.audit.always={always}")
        assert ("audit" in planned_stages(cell, prepare(cell))) == (always == "true")


def test_a_defense_that_needs_an_audit_has_it_before_the_student_and_depends_on_it(tmp_path):
    from dfkd.stages.stage import planned_stages

    few, more, none = (
        make_cell(tmp_path, *NOISE, *MLP, "defense=escape", word)
        for word in ("stages.audit.images=2", "stages.audit.images=3", "defense.audit=false")
    )
    assert few.hash != more.hash  # a finished student of another audit is not taken for this one
    planned = [planned_stages(cell, prepare(cell)) for cell in (few, more, none)]
    assert [list(stages).index("audit") < list(stages).index("split") for stages in planned[:2]] == [True, True]
    assert len({stages["student"].key for stages in planned}) == len({stages["split"].key for stages in planned}) == 3
    assert "audit" not in planned[2] and planned[0]["pool"].key == planned[2]["pool"].key


def test_the_audit_of_a_defense_counts_as_evaluations(tmp_path):
    result = run(tmp_path, *NOISE, *MLP, *LITTLE, "defense=escape", "student.epochs=1")
    alone = run(tmp_path, *NOISE, *MLP, *LITTLE, "defense=none", "student.epochs=1", "stages.audit.always=true")
    shown = result["audit"]["images_shown"]
    assert shown == alone["audit"]["images_shown"] > 0 and alone["teacher_evals"]["split"] == 0
    assert result["teacher_evals"]["split"] >= shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("stages.audit.images=0", "until=audit"), "stages.audit.*images must be a whole number of at least 1, got 0"),
        (
            ("domain@ntl_scenario.id=two_moons", "network@teacher.network=mlp", "network@student.network=mlp",
             "synthesizer=cake_2d", "until=audit"),
            "until=audit: the audit paints images",
        ),
        (
            ("domain@ntl_scenario.id=two_moons", "network@teacher.network=mlp", "network@student.network=mlp",
             "synthesizer=cake_2d", "defense=escape"),
            "defense=escape: the audit paints images.*set defense.audit=false",
        ),
        (("defense=escape", "~stages.audit"), "defense=escape needs stages.audit, .*set defense.audit=false"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_any_work(tmp_path, words, said):
    with pytest.raises(ConfigError, match=said):
        prepare(make_cell(tmp_path, *words))
