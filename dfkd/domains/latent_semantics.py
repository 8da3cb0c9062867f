"""Vectors of texts by latent semantic analysis (Deerwester et al., JASIS 1990): tf-idf on its leading directions."""

import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

WORD = re.compile(r"[a-z]{2,}")
RARE = 2  # a word in fewer texts than this is left out


class LatentSemantics:
    """An encoder of texts, fitted to some of them. A text becomes a vector of length 1 (or 0, if it has no known word).

        tf-idf = (1 + ln count) (1 + ln((1 + N) / (1 + texts with the word))), divided by its length
        vector = its product with the `length` leading right singular vectors of the fitted texts, divided by its length

    Args:
        texts: the texts that it is fitted to.
        length: length of the vectors.

    Raises:
        ValueError: length is below 1, or above the number of texts or of known words.
    """

    def __init__(self, texts: Sequence[str], length: int):
        counts = Counter(word for text in texts for word in set(words_of(text)))
        known = sorted(word for word, count in counts.items() if count >= RARE)
        if not 1 <= length <= min(len(texts), len(known)):
            raise ValueError(f"length must lie in 1..{min(len(texts), len(known))} for these texts, got {length}")
        self.index = {word: number for number, word in enumerate(known)}
        shares = torch.tensor([(1 + len(texts)) / (1 + counts[word]) for word in known], dtype=torch.float64)
        self.rarity = 1 + shares.log()
        matrix = self._tf_idf(texts)
        # The eigenvectors of the texts' inner products are cheaper than a singular value decomposition of all words.
        values, vectors = torch.linalg.eigh(matrix @ matrix.T)
        leading, scale = vectors[:, -length:].flip(1), values[-length:].flip(0).clamp_min(1e-12).sqrt()
        directions = matrix.T @ leading / scale
        largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
        self.directions = directions * largest.sign()  # the sign of an eigenvector is arbitrary: fix it

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return vectors (N, length), float32."""
        return _unit(self._tf_idf(texts) @ self.directions).float()

    def _tf_idf(self, texts: Sequence[str]) -> Tensor:
        """Return (N, words), float64, rows of length 1."""
        places = [
            (row, self.index[word]) for row, text in enumerate(texts) for word in words_of(text) if word in self.index
        ]
        counts = torch.zeros(len(texts), len(self.index), dtype=torch.float64)
        if places:
            counts.index_put_(tuple(torch.tensor(places).T), torch.ones((), dtype=torch.float64), accumulate=True)
        return _unit(torch.where(counts > 0, 1 + counts.clamp_min(1).log(), 0) * self.rarity)


def words_of(text: str) -> list[str]:
    return WORD.findall(text.lower())


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
