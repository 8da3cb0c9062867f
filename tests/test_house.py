"""The layout of the package: few modules in its root, no circles, and nothing imports what stands above it."""

import ast
import functools
import re
from pathlib import Path

import pytest
from runner import ROOT

PACKAGE = ROOT / "dfkd"
# Folders and root modules, each of which imports only from those before it.
ORDER = (
    *("errors", "store", "metrics", "config", "training", "recipe", "noise", "machine", "resume", "models", "weights"),
    *("domains", "triggers"),
    *(
        "scenarios",
        "evaluate",
        "pool",
        "priors",
        "synthesizers",
        "attacks",
        "scouts",
        "carriers",
        "audit",
        "defenses",
        "teachers",
        "distill",
        "measures",
    ),
    *("tracker", "stages", "run", "report", "sweeps", "cli", "main"),
)


def modules() -> dict[str, Path]:
    """All modules of the package by name; those that only start a command are left out."""
    files = (file for file in PACKAGE.rglob("*.py") if file.name != "__main__.py")
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def imported(file: Path, known: dict[str, Path]) -> set[str]:
    """The package's modules that a file imports anywhere in it, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            while name and name not in known:
                name = name.rpartition(".")[0]
            found |= {name} - {""}
    return found


@functools.cache
def edges() -> dict[str, set[str]]:
    """{module: the package's modules that it imports}."""
    known = modules()
    return {module: imported(file, known) - {module, "dfkd"} for module, file in known.items()}


def unit(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def test_the_root_has_few_modules():
    flat = [file.name for file in PACKAGE.glob("*.py") if not file.name.startswith("__")]
    assert len(flat) <= 8, flat


@pytest.mark.parametrize("folder", sorted(file.parent.name for file in PACKAGE.glob("*/__init__.py")))
def test_every_folder_says_what_it_is_for_and_what_may_import_it(folder):
    text = ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text()))
    importer = re.search(r"May be imported by dfkd\.(\w+) and later rooms\.", text)[1]
    users = {unit(module) for module, others in edges().items() if folder in map(unit, others)} - {folder}
    assert len(text.partition("\n")[0]) > 20 and ORDER.index(importer) > ORDER.index(folder)
    assert all(ORDER.index(user) >= ORDER.index(importer) for user in users)


def test_nothing_imports_what_stands_above_it():
    wrong = [
        f"{module} imports {other}"
        for module, others in edges().items()
        for other in others
        if module != "dfkd" and unit(module) != unit(other) and ORDER.index(unit(other)) > ORDER.index(unit(module))
    ]
    assert wrong == []


def test_no_circle_of_imports():
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        if module in way:
            pytest.fail(" -> ".join([*way[way.index(module) :], module]))
        if module not in done:
            for other in edges()[module]:
                visit(other, (*way, module))
            done.add(module)

    for module in edges():
        visit(module, ())
