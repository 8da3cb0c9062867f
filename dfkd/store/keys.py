"""Keys: hashes of everything that can change what is computed."""

import hashlib
import json
from collections.abc import Callable

# Keys of a configuration that name an option but do not change what it does.
NAMES_ONLY = ("name",)
# Options that were added later. Their null means "as before" and is left out, so that older artifacts keep their keys.
LATER = ("entry", "stem", "pools", "grid", "hidden", "train_images", "imbalance", "label_noise", "samples")


def content_key(
    stage: str,
    version: int,
    config: object,
    inputs: dict[str, str] | None = None,
    sources: Callable[[dict], dict[str, str]] = lambda node: {},
) -> str:
    """Return the key of an artifact: the first 16 hexadecimal digits of sha256([stage, version, config, input keys]).

    Args:
        stage, version: name of the stage, and version of its code (`dfkd.stages.Stage`).
        config: resolved configuration of plain dicts, lists and scalars.
        inputs: {stage: key} of the artifacts that feed this stage.
        sources: gets a dict of the configuration and returns the digests of the files and the code that it names, by
            key (`dfkd.config.sources`). They replace its values: the content of a file counts, not its location.
    """
    body = [stage, version, _canonical(config, sources), sorted((inputs or {}).items())]
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def _canonical(node: object, sources: Callable[[dict], dict[str, str]]) -> object:
    if isinstance(node, dict):
        known = (node | sources(node)).items()
        items = {key: value for key, value in known if key not in NAMES_ONLY and not (value is None and key in LATER)}
        return {str(key): _canonical(value, sources) for key, value in items.items()}
    if isinstance(node, list | tuple):
        return [_canonical(value, sources) for value in node]
    return node
