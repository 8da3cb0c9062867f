"""Digests of the files and of the user's own code that a configuration names.

Keys contain these digests instead of paths, so the location of a file does not count. Components of this package add
nothing.

    path: FILE or DIR         its digest; likewise any option whose name ends in _path
    paths: [FILE, DIR]        their digests; likewise any option whose name ends in _paths
    _target_: my_method.Mine  the digest of my_method.py and of the own modules that it imports (`own_code`)
    dataset: MNIST            a data set of torchvision: digests of its files, if they are not the published ones
"""

import re
from pathlib import Path

from dfkd.config.own_code import digest_of, own_code
from dfkd.config.published_sets import FILES
from dfkd.store.digest import Digests


class Sources:
    """Digests of the files and modules that one configuration names; each is computed once.

    Args:
        digests: computes and caches the digests of files.
        root: the folder of torchvision's data sets (`data.root`).
    """

    def __init__(self, digests: Digests, root: object):
        self.digests, self.root = digests, root
        self._files: dict[tuple[str, str], str] = {}
        self._codes: dict[str, str] = {}

    def __call__(self, node: dict) -> dict[str, str]:
        """Return {key: digest} for the keys of a configuration node that name a file or the user's own code. The key
        'files' is added for a data set of torchvision with other files than the published ones."""
        digests = {
            key: " ".join(map(self._file, paths)) for key, value in node.items() if (paths := _paths(key, value))
        }
        target = node.get("_target_")
        if isinstance(target, str) and (code := self._code(target)):
            digests["_target_"] = f"{target} {code}"
        if target == "dfkd.domains.vision" and (files := self._set(node)):
            digests["files"] = files
        return digests

    def _file(self, path: str, algorithm: str = "sha256") -> str:
        if (path, algorithm) not in self._files:
            self._files[path, algorithm] = self.digests.of(path, algorithm)
        return self._files[path, algorithm]

    def _code(self, target: str) -> str:
        if target not in self._codes:
            own = own_code(target.rpartition(".")[0])
            for file, digest in own.values():
                self.digests.note(file, digest)
            self._codes[target] = digest_of(own)
        return self._codes[target]

    def _set(self, node: dict) -> str:
        """Return the digests of the existing files of a torchvision data set; '' if they all are the published ones."""
        published = FILES.get(str(node.get("dataset")), {})
        paths = {str(Path(str(node.get("root", self.root)), file)): md5 for file, md5 in published.items()}
        there = {path: self._file(path, "md5") for path in paths if Path(path).expanduser().is_file()}
        other = any(digest != f"md5:{paths[path]}" for path, digest in there.items())
        return " ".join(there.values()) if other else ""


def _paths(key: object, value: object) -> list[str]:
    """Return the paths in the value of an option; empty if it does not name files."""
    values = value if isinstance(value, list) else [value]
    names_files = re.fullmatch(r"(.*_)?paths?", str(key)) is not None
    return values if names_files and all(isinstance(path, str) for path in values) else []
