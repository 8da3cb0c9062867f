import pytest
import torch

from dfkd.domains import EMBEDDINGS, docstrings
from dfkd.domains.docstrings import CORPUS, corpus
from dfkd.domains.latent_semantics import words_of


def test_the_corpus_is_balanced_unique_and_has_its_licence():
    texts, labels = corpus()
    assert len(set(texts)) == len(texts) == 920 and [labels.count(k) for k in range(4)] == [230] * 4
    assert all(len(words_of(text)) >= 10 and len(text) <= 400 for text in texts)
    assert "PYTHON SOFTWARE FOUNDATION LICENSE" in CORPUS.with_name("docstrings.LICENSE.txt").read_text()


def test_texts_are_vectors_of_length_one_in_seeded_splits():
    domain, again, other = docstrings(), docstrings(), docstrings(split_seed=1)
    assert domain.shape == (32, 1, 1) and domain.classes == 4 and domain.modality is EMBEDDINGS
    assert (len(domain.train), len(domain.val), len(domain.test)) == (552, 138, 230)
    assert torch.allclose(domain.train.x.flatten(1).norm(dim=1), torch.ones(552), atol=1e-5)
    assert torch.equal(domain.test.y, again.test.y) and torch.allclose(domain.test.x, again.test.x)
    assert not torch.equal(domain.test.y, other.test.y)


def test_the_vectors_tell_the_fields_apart():
    """The nearest mean of a class is right for most test texts; chance is a quarter."""
    domain = docstrings(16)
    means = torch.stack([domain.train.x[domain.train.y == k].flatten(1).mean(0) for k in range(4)])
    nearest = torch.cdist(domain.test.x.flatten(1), means).argmin(1)
    assert (nearest == domain.test.y).float().mean() > 0.65


def test_few_texts():
    domain = docstrings(length=4, limit=20)
    assert len(domain.train) == len(domain.val) == len(domain.test) == 20
    with pytest.raises(ValueError, match="length must lie in"):
        docstrings(length=21, limit=20)
