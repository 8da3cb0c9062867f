"""A small corpus of real texts, as vectors: documentation strings of Python's standard library, by their field."""

import functools
import gzip
import json
from pathlib import Path

import torch

from dfkd.domains.base import Domain, Images, split_validation, subsample
from dfkd.domains.embeddings import statistics
from dfkd.domains.latent_semantics import LatentSemantics
from dfkd.domains.modality import EMBEDDINGS

CORPUS = Path(__file__).with_name("docstrings.json.gz")  # under Python's licence, docstrings.LICENSE.txt


def docstrings(length: int = 32, val_share: float = 0.2, split_seed: int = 0, limit: int | None = None) -> Domain:
    """Load the texts as embeddings (length, 1, 1). A quarter of them is the test split.

    920 texts of four classes: concurrency, user interfaces, markup and data formats, numbers and dates. The encoder is
    fitted to the training texts (`LatentSemantics`); a classifier sees the vectors only.

    Args:
        length: length of the vectors.
        val_share: share of the remaining three quarters that goes to validation, in (0, 1).
        split_seed: seed of both splits.
        limit: at most this many texts per split.

    Raises:
        ValueError: a number is out of range.
    """
    texts, labels = corpus()
    everything = Images(torch.arange(len(texts)).float().view(-1, 1, 1, 1), torch.tensor(labels))  # numbers of texts
    rest, test = split_validation(everything, 0.25, split_seed)
    train, val = split_validation(rest, val_share, split_seed)
    chosen = [subsample(part, limit, split_seed) for part in (train, val, test)]
    parts = [[texts[number] for number in part.x.flatten().int().tolist()] for part in chosen]
    encode = LatentSemantics(parts[0], length)
    train, val, test = (Images(encode(part)[:, :, None, None], c.y) for part, c in zip(parts, chosen, strict=True))
    return Domain("docstrings", max(labels) + 1, train, val, test, *statistics(train), EMBEDDINGS)


@functools.cache
def corpus() -> tuple[list[str], list[int]]:
    """Return the texts and their labels, which number the fields in the order of the file."""
    fields = json.loads(gzip.decompress(CORPUS.read_bytes()))
    pairs = [(text, label) for label, texts in enumerate(fields.values()) for text in texts]
    return [text for text, _ in pairs], [label for _, label in pairs]
