"""The user's own code: the modules that `_target_`s name outside of this package, and what those import of their kind.

A module is own if pip did not install it and it is none of Python's: it lies in a folder from where the user starts, or
on PYTHONPATH, or is installed from its sources (`pip install -e`). Nothing is executed to find it, so that a finished
cell is known without importing torch. What a module imports by `importlib` and by names in strings is not seen.
"""

import ast
import functools
import hashlib
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]

_seen: dict[str, str] = {}  # by module: the digest of its source when it was last looked at before its import


def own_code(module: str) -> dict[str, tuple[Path, str]]:
    """File and digest of an own module, of its parents and of the own modules that they import, by name; empty for a
    module that is not own, or not there.

    What is edited after its import counts for the next process: this one goes on with what it has imported.
    """
    found: dict[str, tuple[Path, str]] = {}
    queue = [module]
    for wanted in queue:  # grows on the way
        for name, file, is_package in _files(wanted):
            if name not in found:
                source = file.read_bytes()
                if name not in _seen or name not in sys.modules:
                    _seen[name] = f"sha256:{hashlib.sha256(source).hexdigest()}"
                found[name] = file, _seen[name]
                queue += _imported(source, name, is_package)
    return found


def digest_of(own: dict[str, tuple[Path, str]]) -> str:
    """One digest of own code, wherever it lies; '' if there is none."""
    parts = sorted(f"{name} {digest}" for name, (_, digest) in own.items())
    return f"sha256:{hashlib.sha256(' '.join(parts).encode()).hexdigest()}" if parts else ""


def code_digest(config: dict) -> str:
    """sha256 of the program: all of this package's modules, and the own code that a configuration stands on."""
    own = [digest_of(own_code(module)) for module in sorted({target.rpartition(".")[0] for target in _targets(config)})]
    return hashlib.sha256(" ".join([_package(), *own]).encode()).hexdigest()


def _targets(node: Any) -> Iterator[str]:
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _targets(value)
    if isinstance(node, dict) and "_target_" in node:
        yield str(node["_target_"])


@functools.cache
def _package() -> str:
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{file.relative_to(PACKAGE)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def _files(module: str) -> Iterator[tuple[str, Path, bool]]:
    """Of the parents of a module and of itself, if it is own: name, file, and whether it is a package."""
    parts = module.split(".")
    if parts[0] in ("", PACKAGE.name) or parts[0] in sys.stdlib_module_names:
        return
    path = None
    for i in range(len(parts)):
        name = ".".join(parts[: i + 1])
        spec = _spec(name, path)
        if spec is None or (i == 0 and _is_installed(spec)):
            return
        if spec.has_location and Path(spec.origin).is_file():
            yield name, Path(spec.origin), spec.submodule_search_locations is not None
        path = spec.submodule_search_locations
        if path is None:
            return


def _spec(name: str, path: list[str] | None) -> ModuleSpec | None:
    """Where a module lies; unlike `importlib.util.find_spec` this executes no parent of it."""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, path) if hasattr(finder, "find_spec") else None
        if spec is not None:
            return spec
    return None


def _is_installed(spec: ModuleSpec) -> bool:
    """Whether pip or the like put a top module where it lies."""
    places = spec.submodule_search_locations or [spec.origin or ""]
    return any(_has_packages(Path(place).parent) for place in places)


@functools.cache
def _has_packages(folder: Path) -> bool:
    return folder.name in ("site-packages", "dist-packages") or any(folder.glob("*.dist-info"))


@functools.cache
def _imported(source: bytes, module: str, is_package: bool) -> list[str]:
    """Names of what a module's source imports: modules, and names in them that may be modules."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # compiled, or wrong: who imports it says so
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: None if is_package else -1]
            base = parents[: len(parents) - node.level + 1] if node.level else []
            whole = ".".join([*base, *([node.module] if node.module else [])])
            found += [whole, *(f"{whole}.{alias.name}" for alias in node.names)]
    return [name for name in found if name]
