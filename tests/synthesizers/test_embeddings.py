import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from dfkd.synthesizers.embeddings import label_embeddings, orthogonal


def test_the_default_is_orthogonal_and_seeded():
    rows = orthogonal(5, 8, seed=3)
    assert torch.allclose(rows @ rows.T, torch.eye(5), atol=1e-5)
    assert torch.equal(rows, orthogonal(5, 8, seed=3))
    assert not torch.allclose(rows, orthogonal(5, 8, seed=4))


def test_more_classes_than_numbers_give_unit_vectors_that_differ():
    rows = orthogonal(40, 16, seed=0)
    likeness = rows @ rows.T - torch.eye(40)
    assert torch.allclose(rows.norm(dim=1), torch.ones(40), atol=1e-5) and likeness.abs().max() < 0.9


def test_a_file_is_taken_as_it_is(tmp_path, host_random):
    rows = torch.randn(3, 4, generator=host_random)
    save_file({"anything": rows.half()}, tmp_path / "e.safetensors")
    found = label_embeddings("file", str(tmp_path / "e.safetensors"), None, 3, 4)
    assert found.dtype == torch.float32 and torch.allclose(found, rows, atol=1e-2)
    assert label_embeddings("orthogonal", None, None, 3, 4) is None


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"a": torch.zeros(3, 5)}, r"gives \(3, 5\).*embedding=4 need \(3, 4\)"),
        ({"a": torch.zeros(2, 4)}, r"gives \(2, 4\)"),
        ({"a": torch.zeros(3, 4), "b": torch.zeros(1)}, r"one tensor.*\['a', 'b'\]"),
        ({"a": torch.full((3, 4), torch.nan)}, "not finite"),
    ],
)
def test_a_file_of_another_shape_is_named(tmp_path, tensors, said):
    save_file(tensors, tmp_path / "e.safetensors")
    with pytest.raises(ValueError, match=said) as raised:
        label_embeddings("file", str(tmp_path / "e.safetensors"), None, 3, 4)
    assert "e.safetensors" in str(raised.value)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "e.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"e\.safetensors is no whole safetensors file"):
        label_embeddings("file", str(tmp_path / "e.safetensors"), None, 3, 4)


LABELS = ["cat", "dog", "ship"]


def encoder(monkeypatch, fail: bool = False) -> None:
    """Stand in for open_clip: an 'embedding' counts the letters of the prompt."""

    def create(name, pretrained):
        if fail:
            raise OSError("no network")
        model = SimpleNamespace(encode_text=lambda tokens: tokens.float())
        model.eval = lambda: model
        return model, None, None

    def tokenizer(name):
        return lambda prompts: torch.tensor([[len(p), p.count("a"), 0, 1] for p in prompts])

    fake = SimpleNamespace(create_model_and_transforms=create, get_tokenizer=tokenizer)
    monkeypatch.setitem(sys.modules, "open_clip", fake)


def test_a_text_encoder_reads_the_prompts_of_the_labels(monkeypatch):
    encoder(monkeypatch)
    found = label_embeddings("open_clip", None, LABELS, 3, 4)
    assert found[:, 0].tolist() == [len(f"a image of {label}") for label in LABELS]


def test_a_text_encoder_without_weights_or_names_or_not_installed_says_what_to_do(monkeypatch):
    encoder(monkeypatch, fail=True)
    with pytest.raises(ValueError, match=r"weights 'openai' of ViT-B-32.*no network.*embeddings=orthogonal"):
        label_embeddings("open_clip", None, LABELS, 3, 4)
    with pytest.raises(ValueError, match=r"names of the 3 classes: synthesizer\.labels"):
        label_embeddings("open_clip", None, LABELS[:2], 3, 4)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ValueError, match=r"not installed \(pip install open_clip_torch\).*embeddings=orthogonal"):
        label_embeddings("open_clip", None, LABELS, 3, 4)
