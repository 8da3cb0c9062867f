"""The command line: one clear message for a mistake, the same result for the same command."""

import json
import os
import shlex
import signal

import pytest
import yaml
from runner import DFQ, TINY, command_line, make_cell, process, status, write_component

from dfkd.errors import ConfigError, NonFiniteLoss
from dfkd.main import explain, in_a_line


def outputs(tmp_path) -> str:
    return f"outputs={tmp_path / 'o'}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["teacher=supervisd"], ["teacher", "'supervisd'", "did you mean 'supervised'?", "ntl"]),
        (["synthesizer=xyz"], ["synthesizer", "'xyz'", "cake", "noise_images"]),
        (["network@student.network=lenett"], ["'lenett'", "did you mean 'lenet'?"]),
        (["techer=supervised"], ["'techer'", "did you mean 'teacher'?"]),
        (["teacher.epohcs=3"], ["teacher.epohcs", "did you mean 'epochs'?"]),
        (["runtime.devce=cpu"], ["runtime.devce", "did you mean 'device'?"]),
        (["+teacher.epohcs=3"], ["teacher.epohcs", "did you mean 'epochs'?"]),
        (["student.network.layers=3"], ["student.network.layers", "widths"]),
        (["teacher=checkpoint"], ["teacher.path is missing", "teacher.path=..."]),
        (["synthesizer=cake", "synthesizer.groups=7"], ["groups=7 does not divide batch_size=500"]),
        (["synthesizer=cake", "noise.eps=-1"], ["noise", "eps must be positive, got -1"]),
        (["~prior.tv"], ["prior.tv"]),
        (["teacher.epochs"], ["teacher.epochs"]),
        (["teacher=null"], ["takes the name of one of its options"]),
        (["~evaluate.premise.steps"], ["evaluate.premise.steps must be a whole number", "got None"]),
        (["experiment=quickstrat"], ["'quickstrat'", "did you mean 'quickstart'?"]),
    ],
    ids=lambda value: " ".join(value) if "=" in value[-1] else "",
)
def test_a_mistake_is_one_message_without_a_traceback(tmp_path, arguments, said):
    done = command_line(*arguments, outputs(tmp_path))
    assert done.code == 1
    for words in said:
        assert words in done.err
    assert done.err.count("dfkd: ") == 1 and "Traceback" not in done.err and done.out == ""
    assert not (tmp_path / "o" / "store").exists() and not (tmp_path / "o" / "runs").exists()


def test_the_process_says_the_same_and_exits_with_1(tmp_path):
    done = process("+teacher.network.widht=[8]", outputs(tmp_path), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    _, message = done.stderr.splitlines()  # after the cell's name
    assert message == "dfkd: teacher.network.widht: there is no such option; did you mean 'widths'?"


def test_cfg_job_prints_the_configuration_and_does_nothing(tmp_path):
    done = process("--cfg", "job", "defense=atesc", "seed=3", outputs(tmp_path), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    config = yaml.safe_load(done.stdout)
    assert config["defense"]["name"] == "atesc" and config["defense"]["criterion"]["name"] == "pgd"
    assert config["seed"] == 3 and not (tmp_path / "o").exists()


def test_a_run_then_the_same_command_again(tmp_path):
    command = (*TINY, *DFQ, outputs(tmp_path))
    first = command_line(*command)
    assert first.code == 0 and "teacher" in first.err and "Traceback" not in first.err
    (result,) = (tmp_path / "o" / "runs").glob("*/result.json")
    before = result.stat().st_mtime_ns
    said = json.loads(result.read_text())["command"]  # repeats it
    assert said == json.loads((result.parent / "status.json").read_text())["command"]
    second = command_line(*shlex.split(said)[1:])
    assert second.code == 0 and "was finished before" in second.err and "teacher " not in second.err
    assert result.stat().st_mtime_ns == before


def test_a_list_of_priors_adds_up(tmp_path):
    done = command_line("--cfg", "job", "prior=[tv,bn]", outputs(tmp_path))
    assert sorted(yaml.safe_load(done.out)["prior"]) == ["bn", "tv"]


def test_ctrl_c_keeps_what_is_finished(tmp_path, monkeypatch):
    code = (
        "from dfkd.defenses import Defense\n\n\nclass Stop(Defense):\n"
        "    def loss(self, *_):\n        raise KeyboardInterrupt\n"
    )
    write_component(tmp_path, "stopper", code, defense__stop="name: stop\n_target_: stopper.Stop\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    done = command_line("--config-dir", str(tmp_path / "options"), *TINY, *DFQ, "defense=stop", outputs(tmp_path))
    assert done.code == 1 and "interrupted" in done.err and "the same command goes on" in done.err
    (folder,) = (tmp_path / "o" / "runs").iterdir()
    assert status(folder) == "interrupted"
    assert len(list((tmp_path / "o" / "store" / "teacher").glob("*/meta.json"))) == 1
    assert not list((tmp_path / "o" / "store").rglob("*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_run_where_the_same_command_goes_on(tmp_path, monkeypatch, number):
    from dfkd.distill import Distillation

    command = (*TINY, *DFQ, "limit.rounds=4", "synthesizer.rounds=4", outputs(tmp_path))
    with monkeypatch.context() as patch:
        log_round = Distillation.log_round

        def stop_in_the_third_round(self, round):
            if round == 2:
                os.kill(os.getpid(), number)
            return log_round(self, round)

        patch.setattr(Distillation, "log_round", stop_in_the_third_round)
        done = command_line(*command)
    assert done.code == 1 and done.err.count("interrupted: what is done is kept, the same command goes on") == 1
    (folder,) = (tmp_path / "o" / "runs").iterdir()
    assert status(folder) == "interrupted" and "Traceback" not in done.err
    again = command_line(*command)
    assert again.code == 0 and "resumed at round 3 of 4" in again.err
    assert status(folder) == "done" and not list((tmp_path / "o" / "store").rglob(".*.checkpoint"))


def test_a_full_traceback_is_there_for_who_asks(tmp_path, monkeypatch):
    from dfkd import main

    monkeypatch.setattr("sys.argv", ["dfkd", "teacher=checkpoint", outputs(tmp_path)])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(main, "start_logging", lambda: None)
    with pytest.raises(ConfigError):
        main.cli()


def test_a_misspelt_experiment_is_told_all_there_are(tmp_path):
    said = command_line("experiment=quikstart", outputs(tmp_path)).err
    assert "did you mean 'quickstart'" in said and "cake/mnist" in said


def test_messages_of_errors():
    assert "the disk is full" in explain(OSError(28, "No space left on device"))
    assert explain(PermissionError(13, "Permission denied", "/o")).startswith(
        "/o cannot be used (Permission denied); set"
    )
    assert explain(ConfigError("a is wrong\nb too")) == "a is wrong\nb too"
    text = explain(NonFiniteLoss("kd", 7))
    assert "'kd'" in text and "step 7" in text and "HYDRA_FULL_ERROR=1" in text


def test_the_last_line_of_a_run_puts_the_student_beside_its_teacher():
    student = {"iacc": 91.25, "oacc": None, "olacc": None, "asr": 3.0}
    teacher = {"iacc": 98.0, "oacc": None, "olacc": None, "asr": 100.0}
    line = in_a_line({"student": student, "teacher": teacher})
    assert line.endswith("ID accuracy 91.2 (98.0), attack success 3.0 (100.0)")


@pytest.mark.parametrize("section", ["seeds", "data", "evaluate", "evaluate.premise", "runtime", "limit"])
def test_a_section_that_is_overwritten_by_a_value_is_named(tmp_path, section):
    with pytest.raises(ConfigError, match=f"{section} is a section"):
        make_cell(tmp_path, f"{section}=null")
