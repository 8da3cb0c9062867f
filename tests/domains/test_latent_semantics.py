import math

import pytest
import torch

from dfkd.domains.latent_semantics import LatentSemantics

TEXTS = [
    "Read a file, read a line.",
    "Write a line to the file.",
    "The mean of the numbers.",
    "The sum of the numbers and the mean.",
    "Read numbers from a file!",
]


def by_hand(text: str) -> dict[str, float]:
    """tf-idf of a text among TEXTS, word by word, before it is divided by its length."""
    words = [word.strip(".,!").lower() for word in text.split()]
    found = {}
    for word in set(words):
        containing = sum(word in [w.strip(".,!").lower() for w in other.split()] for other in TEXTS)
        if containing >= 2 and len(word) >= 2:
            found[word] = (1 + math.log(words.count(word))) * (1 + math.log(6 / (1 + containing)))
    return found


def test_with_all_directions_inner_products_are_those_of_tf_idf():
    encode = LatentSemantics(TEXTS, 5)
    vectors = encode(TEXTS)
    assert vectors.shape == (5, 5) and vectors.dtype == torch.float32
    for i, one in enumerate(map(by_hand, TEXTS)):
        for j, two in enumerate(map(by_hand, TEXTS)):
            product = sum(one[word] * two.get(word, 0) for word in one)
            lengths = math.hypot(*one.values()) * math.hypot(*two.values())
            assert (vectors[i] @ vectors[j]).item() == pytest.approx(product / lengths, abs=1e-5)


def test_few_directions_are_the_best_ones():
    encode = LatentSemantics(TEXTS, 2)
    _, _, right = torch.linalg.svd(encode._tf_idf(TEXTS), full_matrices=False)
    assert torch.allclose((encode.directions.T @ right[:2].T).abs(), torch.eye(2, dtype=torch.float64), atol=1e-8)
    assert (encode.directions.amax(0) >= -encode.directions.amin(0)).all()
    read, _, mean, total, read_too = encode(TEXTS)
    assert min(read @ read_too, mean @ total) > 0.95 and read @ mean < 0.1


def test_a_text_without_a_known_word_is_zero():
    assert LatentSemantics(TEXTS, 2)(["", "zebra"]).abs().max() == 0


@pytest.mark.parametrize("length", [0, 6])
def test_an_impossible_length_is_refused(length):
    with pytest.raises(ValueError, match=rf"length must lie in 1\.\.5 for these texts, got {length}"):
        LatentSemantics(TEXTS, length)
