"""HTML as a tree: whatever text is put into it is written as text, never as markup."""

import base64
import xml.etree.ElementTree as ET
from io import BytesIO
from pathlib import Path

from dfkd.config.keys import plain
from dfkd.report.figures import FAINT, INK

Child = ET.Element | str | None


def tag(kind: str, /, *children: Child, **attributes: object) -> ET.Element:
    """An element. Attributes: `class_` for class, `data_group` for data-group; None for none."""
    given = {key.rstrip("_").replace("_", "-"): plain(value) for key, value in attributes.items() if value is not None}
    element, last = ET.Element(kind, given), None
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
    return "\n".join(map(plain, str(text).split("\n")))


def write(page: ET.Element) -> str:
    """Return the text of the HTML file that holds the page."""
    return "<!doctype html>\n" + ET.tostring(page, encoding="unicode", method="html") + "\n"


def drawing(svg: str, about: str) -> ET.Element:
    """A matplotlib drawing in the page's own colours; what carries a `group-N:tip` id says it when pointed at."""
    root = ET.fromstring(svg.replace(INK, "var(--ink)").replace(FAINT, "var(--line)"))
    root.attrib.pop("height")
    for element in root.iter():  # HTML knows these by their plain names
        element.tag = _local(element.tag)
        element.attrib = {_local(name): value for name, value in element.attrib.items()}
    for element in root.findall("metadata"):
        root.remove(element)
    points = float(root.attrib.pop("width").removesuffix("pt"))
    root.set("style", f"max-width:{1.4 * points:.0f}px")  # one size of letters in all drawings
    root.set("role", "img")
    root.set("aria-label", plain(about))
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
    """A PNG file, drawn again at most `width` pixels wide and in few colours, as an element of class `kind`; None where
    it is no whole picture."""
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
