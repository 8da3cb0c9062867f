"""The user's own code: modules outside of this package that a `_target_` names, and the own modules that they import.

A module is the user's own if it is neither part of Python nor installed by pip: it is in the folder from which the user
starts, on PYTHONPATH, or installed from its sources (`pip install -e`). It is found without executing it, so a finished
cell is recognised without importing torch. Imports by `importlib` or by names in strings are not seen.
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

_seen: dict[str, str] = {}  # {module: digest of its source}, last computed before the module was imported


def own_code(module: str) -> dict[str, tuple[Path, str]]:
    """Return {module: (file, digest)} of one of the user's own modules, its parent packages, and the own modules that
    they import; empty for a module that is not the user's own or does not exist.

    An edit after the import of a module counts for the next process only: this process runs what it has imported.
    """
    modules: dict[str, tuple[Path, str]] = {}
    queue = [module]
    for wanted in queue:  # the loop appends to it
        for name, file, is_package in _files(wanted):
            if name not in modules:
                source = file.read_bytes()
                if name not in _seen or name not in sys.modules:
                    _seen[name] = f"sha256:{hashlib.sha256(source).hexdigest()}"
                modules[name] = file, _seen[name]
                queue += _imported(source, name, is_package)
    return modules


def digest_of(own: dict[str, tuple[Path, str]]) -> str:
    """Return one digest for all modules that `own_code` returned, independent of their location; '' for none."""
    parts = sorted(f"{name} {digest}" for name, (_, digest) in own.items())
    return f"sha256:{hashlib.sha256(' '.join(parts).encode()).hexdigest()}" if parts else ""


def code_digest(config: dict) -> str:
    """Return the sha256 (hexadecimal) of all modules of this package and the user's own code in a configuration."""
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
    """Yield (name, file, is it a package) of a module and its parent packages, parents first; nothing if the module is
    not the user's own."""
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
    """Find a module without executing its parent packages, which `importlib.util.find_spec` would do.

    Args:
        path: search path of the parent package; None for a top-level module.
    """
    for finder in sys.meta_path:
        spec = finder.find_spec(name, path) if hasattr(finder, "find_spec") else None
        if spec is not None:
            return spec
    return None


def _is_installed(spec: ModuleSpec) -> bool:
    """Return whether a top-level module is in a folder into which pip or a similar tool installs packages."""
    locations = spec.submodule_search_locations or [spec.origin or ""]
    return any(_has_packages(Path(location).parent) for location in locations)


@functools.cache
def _has_packages(folder: Path) -> bool:
    return folder.name in ("site-packages", "dist-packages") or any(folder.glob("*.dist-info"))


@functools.cache
def _imported(source: bytes, module: str, is_package: bool) -> list[str]:
    """Return the names that a module's source imports: modules, and names in modules, which may be submodules."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # compiled, or wrong: its import will raise the error
        return []
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: None if is_package else -1]
            base = parents[: len(parents) - node.level + 1] if node.level else []
            whole = ".".join([*base, *([node.module] if node.module else [])])
            names += [whole, *(f"{whole}.{alias.name}" for alias in node.names)]
    return [name for name in names if name]
