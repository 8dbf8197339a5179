"""A matplotlib figure as SVG for a page: its text stays text, its colours are the page's, its ids nobody else's."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
WIDTH = 380
"""How wide a chart is in its own units, which are the pixels of a phone."""

# Colours that nobody would draw with stand for the page's own, so that a chart follows the page into the dark.
COLOURS = {
    "ink": "#010101",
    "muted": "#010102",
    "line": "#010103",
    "page": "#010104",
    "time": "#010105",
    "power": "#010106",
    "mark": "#010107",
    "machine1": "#010111",
    "machine2": "#010112",
    "machine3": "#010113",
    "machine4": "#010114",
    "machine5": "#010115",
    "machine6": "#010116",
}
_NAMES = {value: name for name, value in COLOURS.items()}
_STYLE = {
    "figure.dpi": 72,  # a pixel is a point
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "font.size": 12,
    "axes.labelsize": 12,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "text.color": COLOURS["muted"],
    "text.parse_math": False,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "path.simplify": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "powerbench",
}
_NUMBER = re.compile(r"-?\d+\.\d+")


def colour_of(machine: int) -> str:
    """The colour of a machine by its number, which is 1 or more; there are six."""
    return COLOURS[f"machine{(machine - 1) % 6 + 1}"]


@contextmanager
def drawing() -> Iterator[None]:
    """Within it figures are made in the manner of the page, whatever the reader's matplotlib is set to."""
    import matplotlib.style

    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        # The reader's browser has the letters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def as_svg(figure: Figure, *, prefix: str, alt: str) -> str:
    """The figure as an `<svg>` element. `prefix` sets its ids apart from other charts'; `alt` says what it shows."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for unwanted in ("metadata", "title"):
        for element in root.findall(SVG + unwanted):
            root.remove(element)
    for parent in root.iter(SVG + "defs"):
        for style in parent.findall(SVG + "style"):  # it would be a rule for the whole page
            parent.remove(style)
    names = _new_names(root, prefix)
    for element in root.iter():
        _make_ours(element, names)
    view = root.get("viewBox", "")
    root.attrib = {"viewBox": view, "role": "img", "aria-label": alt}
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def _new_names(root: ElementTree.Element, prefix: str) -> dict[str, str]:
    """A new name for each id that is referred to."""
    text = " ".join(value for element in root.iter() for value in element.attrib.values())
    used = dict.fromkeys(re.findall(r"#([\w-]+)", text))
    own = [element.attrib["id"] for element in root.iter() if element.get("id") in used]
    return {name: f"{prefix}-{number}" for number, name in enumerate(own)}


def _make_ours(element: ElementTree.Element, names: dict[str, str]) -> None:
    """Without namespace, with new ids, the page's colours and font, and coordinates to a tenth of a pixel."""
    element.tag = element.tag.removeprefix(SVG)
    element.tail = None
    if element.tag != "text":
        element.text = None
    given = dict(element.attrib)
    element.attrib.clear()
    if given.get("id") in names:
        element.set("id", names[given["id"]])
    for key, value in given.items():
        if key == LINK:
            element.set("href", f"#{names[value[1:]]}")
        elif key == "clip-path":
            element.set(key, f"url(#{names[value[5:-1]]})")
        elif key == "style":
            element.set(key, _style(value, is_text=element.tag == "text"))
        elif key != "id" and not value.startswith("rotate(-0 "):
            element.set(key, _short(value))


def _style(given: str, *, is_text: bool) -> str:
    kept = []
    for rule in given.split(";"):
        name, _, value = (part.strip() for part in rule.partition(":"))
        if not name or (is_text and name in ("font-family", "font-style", "font-weight", "font-stretch")):
            continue
        if name == "font":  # "10.5px 'DejaVu Sans', ...": the size alone, the letters are the page's
            name, value = "font-size", value.partition("'")[0].strip()
        colour = _NAMES.get(value)
        kept.append(f"{name}:{value if colour is None else f'var(--{colour})'}")
    return ";".join(kept)


def _short(value: str) -> str:
    """Coordinates to a tenth of a pixel, in one line without needless spaces."""
    rounded = _NUMBER.sub(lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), " ".join(value.split()))
    return re.sub(r" ?([MLCQz]) ?", r"\1", rounded) if rounded.startswith("M") else rounded
