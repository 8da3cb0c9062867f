"""Pictures of an audit as parts of a page: images as PNG in data URIs, histograms as SVG."""

import base64
import html
from collections.abc import Sequence
from io import BytesIO

import torch
from PIL import Image
from torch import Tensor

GAP = 1  # pixels between images of a grid
WIDTH = 320  # of a picture on the page, in CSS pixels
BLUE, ORANGE = "#2B83C6", "#D55E00"  # as in the figures of a report, which colour-blind readers can tell apart


def grid(images: Tensor, columns: int = 8) -> Tensor:
    """Lay out images (N, C, H, W) in rows of `columns`: (C, rows, columns in pixels), with white gaps."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    sheet = torch.ones(channels, rows * (height + GAP) - GAP, min(count, columns) * (width + GAP) - GAP)
    for number, image in enumerate(images):
        top, left = number // columns * (height + GAP), number % columns * (width + GAP)
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def heat(values: Tensor) -> Tensor:
    """Colour a map (H, W) of numbers from black over red and yellow to white: (3, H, W), the largest number white."""
    scaled = (values / values.max().clamp_min(1e-12)).clamp(0, 1)
    return torch.stack([(3 * scaled - shift).clamp(0, 1) for shift in range(3)])


def picture(image: Tensor, caption: str, width: int = WIDTH) -> str:
    """Return an image (C, H, W) in [0, 1], C = 1 or 3, as a figure in HTML, enlarged without smoothing."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    alt = html.escape(caption, quote=True)
    return (
        f'<figure><img width="{width}" alt="{alt}" src="data:image/png;base64,{data}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def bars(groups: dict[str, Sequence[float]], labels: Sequence[str], caption: str) -> str:
    """Return a bar chart in HTML: one or two groups of shares in [0, 1] side by side, a bar of each for every label."""
    step, height = WIDTH / len(labels), 120
    marks = []
    for place, (shares, colour) in enumerate(zip(groups.values(), (ORANGE, BLUE), strict=False)):
        for number, share in enumerate(shares):
            left, tall = step * number + place * step * 0.4 + 0.1 * step, height * share
            marks.append(
                f'<rect x="{left:.1f}" y="{height - tall:.1f}" width="{step * 0.4:.1f}" height="{tall:.1f}" '
                f'fill="{colour}"/>'
            )
    marks += [
        f'<text x="{step * (number + 0.5):.1f}" y="{height + 14}" text-anchor="middle">{html.escape(label)}</text>'
        for number, label in enumerate(labels)
    ]
    legend = " ".join(
        f'<span style="color:{colour}">■</span> {html.escape(name)}'
        for name, colour in zip(groups, (ORANGE, BLUE), strict=False)
    )
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {height + 20}" width="{WIDTH}" role="img">{"".join(marks)}</svg>'
        f"<figcaption>{html.escape(caption)}<br>{legend}</figcaption></figure>"
    )
