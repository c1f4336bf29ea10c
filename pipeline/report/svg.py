"""Matplotlib's SVG for a page with a strict policy, two colour schemes and screen readers.

In: a figure.
Out: an `<svg>` element without style attributes, scripts, fonts or foreign namespaces. Colours are classes of the
page's style sheet, text is text, and a named mark has a `<title>`.
Invariant: the same figure gives the same markup.
Cost: some 50 ms a figure.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#111111"
FAINT = "#999999"
SERIES = ("#a00001", "#a00002", "#a00003", "#a00004", "#a00005", "#a00006", "#a00007", "#a00008")
"""Colours that stand for classes: `ink`, `faint`, `c1` to `c8`."""
CLASSES = {INK: "ink", FAINT: "faint", **{colour: f"c{number}" for number, colour in enumerate(SERIES, 1)}}
NAMED = "named-"
"""Prefix of the `gid` of a named mark; its number follows."""
_SPACE = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_DROPPED = {"font", "font-family", "stroke-miterlimit"}
_REFERENCE = re.compile(r"url\(#([^)]*)\)")


def picture(
    figure: Figure,
    key: str,
    alternative: Mapping[str, str],
    names: Mapping[str, tuple[str, str]],
    labels: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """A figure drawn in colours of this module, as markup with the alternative text by language.

    `key` is a prefix that makes its ids unique in the page; `names` are names of marks, in English and Chinese, by
    their `gid`; `labels` are the Chinese of labels that are drawn in English. The page's script sets either.
    """
    from matplotlib import rc_context  # noqa: PLC0415  # 0.3 s that `corpus --help` should not pay
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415  # as above

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": key}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # matplotlib only measures: the reader's browser draws the text
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(buffer.getvalue())  # noqa: S314  # our own drawing
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)
    for element in root.iter():
        _tidy(element, key, names)
        if element.tag == "text" and (chinese := labels.get(element.text or "", element.text)) != element.text:
            element.attrib |= {"data-en": element.text or "", "data-zh": chinese or ""}
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": alternative["en"]}
    root.attrib |= {f"data-{language}": text for language, text in alternative.items()}
    return ElementTree.tostring(root, encoding="unicode")


def _tidy(element: ElementTree.Element, key: str, names: Mapping[str, tuple[str, str]]) -> None:
    """Turn styles into attributes and classes, and prefix ids."""
    element.tag = element.tag.removeprefix(f"{{{_SPACE}}}")
    own = element.attrib
    properties = [part.partition(":")[::2] for part in own.pop("style", "").split(";") if ":" in part]
    for name, value in ((name.strip(), value.strip()) for name, value in properties):
        if name == "font":  # a shorthand is not an attribute; its size is
            own["font-size"] = re.sub(r".*?([\d.]+)px.*", r"\1", value)
        elif name not in _DROPPED:
            own[name] = value.removesuffix("px") if name == "font-size" else value
    classes = []
    for name in ("fill", "stroke"):
        known = CLASSES.get(own.get(name, ""))
        if known:
            classes.append(f"{name}-{known}")
            del own[name]
        elif name == "fill" and element.tag == "text":
            classes.append("fill-ink")
    if classes:
        own["class"] = " ".join(classes)
    identity = own.pop("id", "")
    if identity.startswith(NAMED):
        element.insert(0, _title(*names[identity]))
    elif identity:
        own["id"] = f"{key}-{identity}"
    if _LINK in own:
        own["href"] = f"#{key}-{own.pop(_LINK).removeprefix('#')}"
    for name, value in own.items():
        own[name] = _REFERENCE.sub(lambda found: f"url(#{key}-{found[1]})", value)


def _title(english: str, chinese: str) -> ElementTree.Element:
    """The name of a mark, which a browser shows beside the pointer."""
    title = ElementTree.Element("title")
    title.text = english
    if chinese != english:
        title.attrib |= {"data-en": english, "data-zh": chinese}
    return title
