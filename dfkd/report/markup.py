"""HTML as a tree of elements: inserted text is always escaped, and never becomes markup."""

import base64
import xml.etree.ElementTree as ET
from io import BytesIO
from pathlib import Path

from dfkd.config.lookup import one_line
from dfkd.report.figures import FAINT, INK

Child = ET.Element | str | None


def tag(kind: str, /, *children: Child, **attributes: object) -> ET.Element:
    """Create an element. Attributes are written `class_` for class and `data_group` for data-group; None omits one."""
    texts = {
        key.rstrip("_").replace("_", "-"): one_line(value) for key, value in attributes.items() if value is not None
    }
    element, last = ET.Element(kind, texts), None
    for child in children:
        if isinstance(child, ET.Element):
            element.append(child)
            last = child
        elif child and last is None:
            element.text = (element.text or "") + _clean(child)
        elif child:
            last.tail = (last.tail or "") + _clean(child)
    return element


def _clean(text: str) -> str:
    return "\n".join(map(one_line, str(text).split("\n")))


def write(page: ET.Element) -> str:
    """Return the page as the text of an HTML file."""
    return "<!doctype html>\n" + ET.tostring(page, encoding="unicode", method="html") + "\n"


def drawing(svg: str, about: str) -> ET.Element:
    """Convert an SVG of matplotlib to an element with the page's colours. Ids `group-N:tip` become a class and a
    tooltip.

    Args:
        about: description for screen readers.
    """
    root = ET.fromstring(svg.replace(INK, "var(--ink)").replace(FAINT, "var(--line)"))
    root.attrib.pop("height")
    for element in root.iter():  # HTML uses names without XML namespaces
        element.tag = _local(element.tag)
        element.attrib = {_local(name): value for name, value in element.attrib.items()}
    for element in root.findall("metadata"):
        root.remove(element)
    points = float(root.attrib.pop("width").removesuffix("pt"))
    root.set("style", f"max-width:{1.4 * points:.0f}px")  # the same font size in all drawings
    root.set("role", "img")
    root.set("aria-label", one_line(about))
    for element in root.iter():
        group, colon, tip = element.get("id", "").partition(":")
        if colon:
            del element.attrib["id"]
            element.set("class", f"mark {group}")
            element.insert(0, tag("title", tip))
    return root


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def picture(path: Path, width: int, about: str, kind: str | None = None) -> ET.Element | None:
    """Embed a PNG file, reduced to at most `width` pixels and 96 colours, as an element of class `kind`; None if the
    file is missing or damaged.

    Args:
        about: alternative text.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            image = image.convert("RGB")
            image.thumbnail((width, 4 * width))
            image = image.quantize(96)
            out = BytesIO()
            image.save(out, "PNG", optimize=True)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    source = f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
    return tag("img", src=source, alt=about, width=image.width, height=image.height, class_=kind)
