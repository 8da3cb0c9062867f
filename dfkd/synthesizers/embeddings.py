"""Embeddings of the class labels, the input of NAYER's generator."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

MODEL, WEIGHTS = "ViT-B-32", "openai"  # NAYER's text encoder, under open_clip's names
PROMPT = "a image of {}"  # as in NAYER


def orthogonal(classes: int, length: int, seed: int) -> Tensor:
    """Draw unit vectors (classes, length). They are orthogonal if classes <= length, otherwise random directions."""
    rows = torch.randn(classes, length, generator=torch.Generator().manual_seed(seed))
    if classes <= length:
        return torch.linalg.qr(rows.T).Q.T.contiguous()
    return rows / rows.norm(dim=1, keepdim=True)


def label_embeddings(
    source: str, path: str | None, labels: list[str] | None, classes: int, length: int
) -> Tensor | None:
    """Load embeddings (classes, length) from a file or a text encoder.

    Args:
        source: 'orthogonal', 'open_clip' or 'file'.
        path: for 'file', a safetensors file with one tensor.
        labels: for 'open_clip', the names of the classes.
        length: length of the generator's input.

    Returns:
        the embeddings; None for 'orthogonal', which the caller draws with the seed.

    Raises:
        ValueError: source is unknown, the file or encoder is missing, its shape does not fit, or a number is not
            finite.
    """
    if source not in ("orthogonal", "open_clip", "file"):
        raise ValueError(f"embeddings must be orthogonal, open_clip or file (with path=FILE), got '{source}'")
    if (path is None) == (source == "file"):
        raise ValueError(f"embeddings=file and path=FILE go together, got embeddings={source} and path={path}")
    if source == "orthogonal":
        return None
    embeddings = _encoded(labels, classes) if source == "open_clip" else _read(Path(path))
    source = path or source
    if embeddings.shape != (classes, length):
        raise ValueError(
            f"embeddings: {source} gives {tuple(embeddings.shape)} numbers, but {classes} classes and a generator with "
            f"embedding={length} need {(classes, length)}"
        )
    if not embeddings.isfinite().all():
        raise ValueError(f"embeddings: {source} holds numbers that are not finite")
    return embeddings.float()


def _read(file: Path) -> Tensor:
    if not file.is_file():
        raise ValueError(
            f"embeddings=file: there is no {file.resolve()}; set path to a safetensors file, or take "
            f"embeddings=orthogonal"
        )
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"embeddings=file: {file} is no whole safetensors file: {error}") from error
    if len(tensors) != 1:
        raise ValueError(f"embeddings=file: {file} must hold one tensor (classes, length), not {sorted(tensors)}")
    return next(iter(tensors.values()))


def _encoded(labels: list[str] | None, classes: int) -> Tensor:
    if not labels or len(labels) != classes:
        raise ValueError(f"embeddings=open_clip needs the names of the {classes} classes: synthesizer.labels=[...]")
    instead = "or take embeddings=orthogonal, or a safetensors file made elsewhere"
    try:
        import open_clip
    except ImportError as error:
        raise ValueError(
            f"embeddings=open_clip: it is not installed (pip install open_clip_torch); {instead}"
        ) from error
    try:
        model, *_ = open_clip.create_model_and_transforms(MODEL, pretrained=WEIGHTS)
    except Exception as error:  # a failed download raises too many different types to list
        raise ValueError(
            f"embeddings=open_clip: the weights '{WEIGHTS}' of {MODEL} are neither in the cache nor to be fetched "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); load them once online, {instead}"
        ) from error
    with torch.no_grad():
        tokens = open_clip.get_tokenizer(MODEL)([PROMPT.format(label) for label in labels])
        return model.eval().encode_text(tokens).cpu()
