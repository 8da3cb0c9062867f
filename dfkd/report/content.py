"""The content of a report: the selected cells, their groups, the tables and the notes below them."""

import re
from dataclasses import dataclass

from dfkd.config.lookup import NAMES, all_keys, matches, one_line, option, suggestion
from dfkd.config.paper import published
from dfkd.errors import ConfigError
from dfkd.report import groups as grouping
from dfkd.report.groups import Group
from dfkd.report.runs import Run
from dfkd.report.tables import STUDENTS_IN_WORDS, Measure, Table, known_measures, pivot, summary, usual_measures
from dfkd.store.run_folder import is_checkable


@dataclass(frozen=True)
class Question:
    """The request of a user; every tuple may be empty.

    Attributes:
        rows, columns: keys (names in keys.NAMES, or dotted paths) whose values define the rows and columns.
        where: filters of cells, (key, value or comma-separated values) each.
        measures: heads of columns (`dfkd.metrics.columns`) or paths in result.json.
        student: 'last' (round) or 'best' (on validation).
    """

    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    where: tuple[tuple[str, str], ...] = ()
    measures: tuple[str, ...] = ()
    student: str = "last"


@dataclass
class Report:
    """The report that answers a `Question`.

    Attributes:
        runs: all selected cells, including unfinished ones.
        groups: groups of cells, one per row of a table or per entry of a pivot, in order.
        measures: measures, one per column of a table or per pivot.
        tables: the tables; empty if no cell has finished.
        notes: explanations for the reader of the tables.
        warnings: {warning: names of the cells that have it}. Texts that differ only in numbers are one warning.
        student: 'last' or 'best'.
    """

    runs: list[Run]
    groups: list[Group]
    measures: list[Measure]
    tables: list[Table]
    notes: list[str]
    warnings: dict[str, list[str]]
    student: str

    @property
    def done(self) -> list[Run]:
        return [run for run in self.runs if run.done]

    @property
    def unfinished(self) -> list[Run]:
        return [run for run in self.runs if not run.done]


def answer(runs: list[Run], question: Question) -> Report:
    """Make the report that answers a question.

    Raises:
        ConfigError: no cell has a requested key, value or measure.
    """
    known = [run for run in runs if run.config]
    for flag, keys in (("rows", question.rows), ("columns", question.columns), ("where", dict(question.where))):
        for key in keys:
            _check_key(key, flag, known)
    if question.where:
        runs = known = _matching(known, question.where)
    groups = _grouped(known, question)
    finished = [group for group in groups if group.done]
    if question.measures:
        measures = known_measures(list(question.measures), runs, question.student)
    elif question.columns:
        measures = known_measures(["student ID"], runs, question.student)
    else:
        measures = usual_measures(groups, question.student)
    tables: list[Table] = []
    if finished and question.columns:
        rows = list(groups[0].label)
        tables = [pivot(groups, rows, list(question.columns), measure) for measure in measures]
    elif finished:
        tables = [summary(groups, measures)]
    notes = _notes(finished, measures, question)
    return Report(runs, groups, measures, tables, notes, _warnings(known), question.student)


def _check_key(key: str, flag: str, runs: list[Run]) -> None:
    if not any(option(run.config, key) is not None for run in runs):
        hint = suggestion(key, all_keys(run.config for run in runs), NAMES)
        raise ConfigError(f"--{flag} '{key}': no cell has such a key{hint}")


def _matching(runs: list[Run], where: tuple[tuple[str, str], ...]) -> list[Run]:
    for key, value in where:
        values = dict.fromkeys(option(run.config, key) or "-" for run in runs)
        runs = [run for run in runs if matches(value, option(run.config, key))]
        if not runs:
            raise ConfigError(f"--where {key}={value}: no cell has it{suggestion(value, values, values)}")
    return runs


def _grouped(runs: list[Run], question: Question) -> list[Group]:
    if not question.rows and not question.columns:
        return grouping.by_content(runs)
    rows = list(question.rows)
    if not rows:  # the default rows of a pivot are all other names in which the cells differ
        rows = [name for name in grouping.differing_names(runs) if name not in question.columns]
    return grouping.by_keys(runs, rows, list(question.columns))


def _notes(groups: list[Group], measures: list[Measure], question: Question) -> list[str]:
    if not groups:
        return ["No cell has finished."]
    count = "mean ± sample std (n)" if question.columns else "mean ± sample std"
    student = STUDENTS_IN_WORDS[question.student]
    notes = [f"Students are those {student}, on test images; percentages, {count} over n seeds."]
    for group in groups:
        mixed = grouping.mixture(group)
        if mixed:
            more = f" and {len(mixed) - 3} more" if len(mixed) > 3 else ""
            notes.append(
                f"{group.name} is a mean over different settings, not over seeds alone: its cells differ "
                f"in {', '.join(mixed[:3])}{more}; add a key to the rows, or choose with --where."
            )
    if any(grouping.of_one_pool(group) for group in groups):
        notes.append("Some of the n students are of the same teacher and pool: the std leaves out what those vary.")
    for group in groups:
        names = [run.name for run in group.done]
        twice = dict.fromkeys(name for name in names if names.count(name) > 1)
        if twice:
            notes.append(f"{group.name} counts a cell that lies in several folders more than once: {', '.join(twice)}.")
    old = sum(not is_checkable(run.result) for group in groups for run in group.done)
    if old:
        notes.append(f"{old} of the cells are of an older dfkd that kept no checksums: they cannot be checked.")
    if "seed" not in (*question.rows, *question.columns, *dict(question.where)):
        notes += [f"{group.name}: missing seeds {', '.join(seeds)}." for group, seeds in grouping.missing_seeds(groups)]
    return notes + _sources(groups, measures)


def _sources(groups: list[Group], measures: list[Measure]) -> list[str]:
    """Return the sources of published numbers, one line per source and measure."""
    papers: dict[tuple[str, str], dict[str, None]] = {}
    for group in groups:
        for m in measures:
            if paper := published(group.done, m.shipped):
                papers.setdefault((m.name, paper.source), {})[f"{paper.value:g}"] = None
    numbers = {
        key: ", ".join(values) if len(values) <= 3 else f"({len(values)} numbers)" for key, values in papers.items()
    }
    return [f"Paper, {name} {numbers[name, source]}: {source}." for name, source in papers]


def _warnings(runs: list[Run]) -> dict[str, list[str]]:
    texts: dict[str, str] = {}
    cells: dict[str, list[str]] = {}
    for run in runs:
        warnings = run.result.get("warnings")
        for text in warnings if isinstance(warnings, list) else []:
            text = texts.setdefault(re.sub(r"[\d.]+", "#", one_line(text)), one_line(text))
            cells.setdefault(text, []).append(run.name)
    return {text: list(dict.fromkeys(names)) for text, names in cells.items()}
