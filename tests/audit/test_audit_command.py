"""`dfkd-audit`: a checkpoint of any origin, without any data."""

import json

import pytest
import torch

from dfkd.cli.audit import EXIT, Given, cli, described
from dfkd.models import Classifier, cnn_bn, mlp, save_classifier

LITTLE = ("stages.audit.images=2", "stages.audit.steps=2", "stages.audit.carrier_steps=2", "stages.audit.scouts=6")
SHAPE = (3, 16, 16)


def audit(capsys, *words: str) -> tuple[int | str, str]:
    """The exit code (or the message) and the output of the command."""
    with pytest.raises(SystemExit) as caught:
        cli([*words, *LITTLE, "runtime.device=cpu", "runtime.threads=1"])
    return caught.value.code, capsys.readouterr().out


@pytest.fixture
def weights(tmp_path):
    """A file of weights without anything beside it."""
    torch.manual_seed(0)
    torch.save(cnn_bn(SHAPE, 4).state_dict(), tmp_path / "mine.pt")
    return str(tmp_path / "mine.pt")


def test_a_file_of_weights_gets_a_page_a_json_and_an_exit_code(weights, tmp_path, capsys):
    normal = ("teacher.mean=[0.5,0.5,0.5]", "teacher.std=[0.2,0.2,0.2]")
    code, said = audit(capsys, weights, "network@teacher.network=cnn_bn", *normal, "--to", str(tmp_path / "page"))
    told = json.loads((tmp_path / "page" / "audit.json").read_text())
    assert code == EXIT[told["answer"]] and told["suspect"] in range(4)
    assert f"open {tmp_path / 'page' / 'audit.html'}" in said
    assert "mine.pt" in (tmp_path / "page" / "audit.html").read_text()


def test_weights_that_dfkd_wrote_need_no_options(tmp_path, capsys):
    model = Classifier(mlp(SHAPE, 3, hidden=8), SHAPE, 3, [0.5] * 3, [0.2] * 3)
    save_classifier(model, {"_target_": "dfkd.models.mlp", "hidden": 8}, tmp_path, "teacher")
    code, _ = audit(capsys, str(tmp_path / "teacher.safetensors"))
    told = json.loads((tmp_path / "teacher.safetensors.audit" / "audit.json").read_text())
    assert code == EXIT[told["answer"]]


@pytest.mark.parametrize(
    "options",
    [
        {"words": ["teacher.mean=[0.3,0.3,0.3]"]},
        {"words": ["network@teacher.network=mlp"]},
        {"words": [], "classes": 5},
        {"words": [], "size": 8},
    ],
)
def test_what_the_user_says_counts_for_weights_that_dfkd_wrote_too(tmp_path, options):
    model = Classifier(cnn_bn(SHAPE, 3), SHAPE, 3, [0.5] * 3, [0.2] * 3)
    save_classifier(model, {"_target_": "dfkd.models.cnn_bn"}, tmp_path, "teacher")
    file = tmp_path / "teacher.safetensors"
    assert described(Given(file, **options)) is None
    assert described(Given(file, ["stages.audit.steps=2"])).classes == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("network@teacher.network=cnn_bn", "teacher.mean=[nan,0,0]"), "teacher.mean.0. must be a finite number"),
        (("network@teacher.network=lenet",), "fits cnn_bn.*not lenet"),
        (("network@teacher.network=cnn_bn",), "teacher.mean is missing"),
        (("stages.audit.scouts=0",), "stages.audit.*scouts must be"),
        (("network@teacher.network=cnn_bnn",), "cnn_bn"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_one(weights, capsys, words, said):
    with pytest.raises(SystemExit, match=f"(?s)dfkd-audit: .*{said}"):
        cli([weights, *words])


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SystemExit, match=r"dfkd-audit: .*none\.pt"):
        cli([str(tmp_path / "none.pt")])
