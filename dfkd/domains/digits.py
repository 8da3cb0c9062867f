"""scikit-learn's handwritten digits: 1,797 real 8x8 images, there without any download."""

import torch

from dfkd.domains.base import Domain, Images, carve, fit_images, limited


def digits(
    size: int | None = 16,
    channels: int | None = None,
    val_share: float = 0.2,
    split_seed: int = 0,
    limit: int | None = None,
) -> Domain:
    """The digits, resized; a quarter of them is the test split.

    Args:
        size: side in pixels, or None for the original 8.
        channels: 1 or 3, or None for the original 1.
        val_share: of the remaining three quarters that go to validation.
        split_seed: of both splits.
        limit: at most this many images a split.
    """
    from sklearn.datasets import load_digits  # 1.5 s to import

    source = load_digits()
    x = torch.from_numpy(source.images * (255 / 16)).round().to(torch.uint8)[:, None]
    everything = Images(fit_images(x, size, channels), torch.from_numpy(source.target).long())
    rest, test = carve(everything, 0.25, split_seed)
    train, val = carve(rest, val_share, split_seed)
    train, val, test = (limited(part, limit, split_seed) for part in (train, val, test))
    return Domain("digits", 10, train, val, test)
