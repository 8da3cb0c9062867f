"""Make the corpus of the domain `docstrings` from the standard library of the Python that runs this script.

    python scripts/make_docstrings.py        rewrites dfkd/domains/docstrings.json.gz, which is shipped

A text is the documentation string of a class or a function of the standard library, and its class is the field that
its module belongs to. The modules are parsed, and not imported. The texts are under the licence of Python, which lies
beside the corpus and allows to distribute them with it. The shipped corpus was made with Python 3.11.7.
"""

import ast
import gzip
import json
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

FIELDS = {  # in the order of the labels
    "concurrency": "asyncio threading multiprocessing concurrent queue subprocess sched contextlib signal selectors",
    "interface": "tkinter turtle idlelib turtledemo curses cmd",
    "markup": "email html xml json csv configparser plistlib tomllib quopri base64 mimetypes",
    "numbers": "_pydecimal fractions statistics random numbers datetime calendar _strptime colorsys bisect heapq "
    "zoneinfo",
}
EACH = 230  # texts of a field
LONGEST = 400  # characters of a text
SHORTEST = 12  # words
OUT = Path(__file__).resolve().parents[1] / "dfkd" / "domains"


def main() -> None:
    stream, library, corpus = random.Random(0), Path(sysconfig.get_path("stdlib")), {}
    for field, modules in FIELDS.items():
        texts = sorted({text for module in modules.split() for text in texts_of(library, module)})
        corpus[field] = stream.sample(texts, EACH)
    packed = gzip.compress(json.dumps(corpus, indent=0).encode(), mtime=0)
    (OUT / "docstrings.json.gz").write_bytes(packed)
    (OUT / "docstrings.LICENSE.txt").write_text((library / "LICENSE.txt").read_text())
    print(f"{sum(map(len, corpus.values()))} texts, {len(packed):,} bytes")


def texts_of(library: Path, module: str) -> Iterator[str]:
    """Yield the documentation strings of a module, or of all modules of a package but its tests."""
    single = library / f"{module}.py"
    for file in [single] if single.exists() else sorted((library / module).rglob("*.py")):
        if any("test" in part for part in file.relative_to(library).parts[:-1]):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                text = " ".join((ast.get_docstring(node) or "").split())[:LONGEST]
                if len(re.findall(r"[a-zA-Z]{2,}", text)) >= SHORTEST:
                    yield text


if __name__ == "__main__":
    main()
