"""`dfkd-report`: tables and a page over any finished cells."""

import argparse
import sys
from pathlib import Path

from dfkd.config.build import nearest
from dfkd.config.lookup import NAMES
from dfkd.config.paths import path
from dfkd.errors import ConfigError
from dfkd.machine.environment import prepare_environment
from dfkd.metrics import columns
from dfkd.report import short_name
from dfkd.report.output import FORMATS
from dfkd.report.tables import STUDENTS

ABOUT = f"""\
Tables and a page over finished cells; also while their sweep still runs.

  dfkd-report                                                    everything under ./outputs
  dfkd-report outputs/sweeps/LIST.jsonl                          one sweep
  dfkd-report --where defense=none,atesc --rows defense teacher.poison_rate
  dfkd-report --rows synthesizer --columns "student network" --measures "student ID" ASR

A KEY is a path in a cell's config.yaml (defense.weight, prior, seed), or one of these names:
  {", ".join(NAMES)}
A MEASURE is a path in result.json (seconds.distill), the label of a metric of your own, or one of these names:
  {", ".join(columns())}
"""


class Parser(argparse.ArgumentParser):
    """A parser that raises ConfigError for a mistake; the message names the nearest option."""

    def error(self, message: str) -> None:
        unknown = message.removeprefix("unrecognized arguments: ").split()[0]
        if unknown != message.split()[0]:
            message = f"there is no '{unknown}'{nearest(unknown, self._option_string_actions)}"
        raise ConfigError(message)


def parser() -> Parser:
    made = Parser("dfkd-report", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("places", nargs="*", type=path, metavar="FOLDER", default=[Path("outputs")],
                      help="run folders, outputs folders, sweep lists (outputs/sweeps/*.jsonl); ./outputs")  # fmt: skip
    made.add_argument("--rows", nargs="+", metavar="KEY", default=[], help="what makes a row; whatever differs")
    made.add_argument("--columns", nargs="+", metavar="KEY", default=[], help="a pivot: what makes a column")
    made.add_argument("--where", nargs="+", metavar="KEY=VALUE", default=[], help="only these cells; KEY=VALUE,VALUE")
    made.add_argument("--measures", nargs="+", metavar="MEASURE", default=[], help="all; of a pivot: student ID")
    made.add_argument("--student", default="last", help="last (of the last round, the default) or best (on validation)")
    made.add_argument("--format", default=",".join(FORMATS), help=f"which files to write: {','.join(FORMATS)}")
    made.add_argument("--to", type=path, metavar="DIR", help="where to; outputs/reports/<hash>")
    return made


def cli(words: list[str] | None = None) -> None:
    """Run `dfkd-report`: print the tables of finished cells, and save the report. Exits with a message on an error."""
    try:
        prepare_environment()
        run(parser().parse_args(words))
    except (ConfigError, OSError) as error:
        sys.exit(f"dfkd-report: {error}")


def run(arguments: argparse.Namespace) -> None:
    """Print the tables, write the files, and print their paths.

    Raises:
        ConfigError: a requested key, value, measure or format does not exist.
        OSError: the files cannot be written.
    """
    from dfkd.report.content import Question, answer
    from dfkd.report.output import save
    from dfkd.report.runs import find
    from dfkd.report.text import markdown, unfinished

    formats = [_one_of(word, FORMATS, "--format") for word in arguments.format.split(",")]
    question = Question(
        rows=tuple(arguments.rows),
        columns=tuple(arguments.columns),
        where=tuple(_pair(text) for text in arguments.where),
        measures=tuple(arguments.measures),
        student=_one_of(arguments.student, STUDENTS, "--student"),
    )
    runs = find(arguments.places)
    report = answer(runs, question)
    name = short_name(repr(question), *sorted(map(str, arguments.places)))
    folder = arguments.to or _reports(arguments.places[0]) / name
    files = save(report, folder, formats)
    blocks = [markdown(report), unfinished(report), "\n".join(f"{name:<5} {file}" for name, file in files.items())]
    print("\n\n".join(filter(None, blocks)))


def _one_of(word: str, known: dict, flag: str) -> str:
    if word not in known:
        raise ConfigError(f"{flag} has no '{word}'{nearest(word, known)}")
    return word


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not value:
        raise ConfigError(f"--where takes KEY=VALUE, as defense=atesc, got '{text}'")
    return key, value


def _reports(path: Path) -> Path:
    """Return the folder `reports` next to the folder `runs` of a path; outputs/reports if there is none."""
    path = path.resolve()
    for folder in (path, *path.parents):
        if (folder / "runs").is_dir():
            return folder / "reports"
    return Path("outputs") / "reports"
