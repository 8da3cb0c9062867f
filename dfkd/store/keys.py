"""Keys: hashes of everything that can change what is computed."""

import hashlib
import json

from dfkd.store.digest import path_digest

# Keys of a configuration that name an option but do not change what it does.
NAMES_ONLY = ("name",)
# Options that came later. Null means "as before", and stays out, so that what was made before keeps its key.
LATER = ("entry", "stem", "pools", "grid", "hidden")


def content_key(stage: str, version: int, config: object, inputs: dict[str, str] | None = None) -> str:
    """Sixteen hexadecimal digits of sha256([stage, version, config, input keys]).

    Args:
        stage, version: its name, and the number of its code (`dfkd.stages.Stage`).
        config: resolved plain dicts, lists and scalars. A value under the key `path` is replaced by a digest of the
            file or folder it names: content counts, not location.
        inputs: keys of the artifacts that feed this stage, by role.
    """
    body = [stage, version, _canonical(config), sorted((inputs or {}).items())]
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def _canonical(node: object) -> object:
    if isinstance(node, dict):
        return {
            str(key): path_digest(value) if key == "path" and isinstance(value, str) else _canonical(value)
            for key, value in node.items()
            if key not in NAMES_ONLY and not (value is None and key in LATER)
        }
    if isinstance(node, list | tuple):
        return [_canonical(value) for value in node]
    return node
