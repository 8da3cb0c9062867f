import pytest
import torch

from dfkd.domains import Images
from dfkd.synthesizers import NoiseImages, RealImages


def test_noise_images_are_standard_normal_in_the_normalised_space(runtime, linear):
    teacher = linear([[0.0] * 192] * 2, shape=(3, 8, 8), mean=(0.1, 0.5, 0.9), std=(0.2, 0.4, 1.0))
    noise = NoiseImages((3, 8, 8), rounds=2, batch_size=200)
    noise.start(runtime, 0)
    inputs = teacher.normalize(noise.synthesize(range(2), teacher).images)
    assert inputs.shape == (400, 3, 8, 8)
    assert inputs.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=0.03)
    assert inputs.std((0, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=0.03)


def test_noise_images_of_a_round_do_not_depend_on_the_others(runtime, linear):
    teacher, noise = linear([[1.0, 0.0], [0.0, 1.0]]), NoiseImages((1, 2, 1), rounds=4, batch_size=3)
    noise.start(runtime, 0)
    together = noise.synthesize(range(4), teacher).images
    assert torch.equal(noise.synthesize(range(2, 3), teacher).images, together[6:9])
    assert len(together.unique(dim=0)) == 12
    noise.start(runtime, 1)
    assert not torch.equal(noise.synthesize(range(4), teacher).images, together)


def test_real_images_are_the_training_images(runtime, linear):
    images = Images(torch.randint(0, 256, (5, 1, 2, 1), dtype=torch.uint8), torch.zeros(5, dtype=torch.long))
    real = RealImages(images)
    real.start(runtime, 0)
    assert real.rounds == 1
    assert torch.equal(real.synthesize(range(1), linear([[1.0, 0.0], [0.0, 1.0]])).images, images.x)


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match="rounds"):
        NoiseImages((1, 2, 1), rounds=0, batch_size=3)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="batch_size"):
        NoiseImages((1, 2, 1), rounds=1, batch_size=0)
