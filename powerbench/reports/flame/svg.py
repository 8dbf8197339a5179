"""Where the joules went as a picture that needs no other file: each frame as wide as what it cost, its callers above.

│ all                                        │
│ training_step.step                         │
│ forward            │ backward       │ adam │
"""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import NamedTuple
from xml.sax.saxutils import escape

from powerbench.analysis.flame import Box, Cost, Flame, tree_of
from powerbench.reports.flame.burnt import Burnt, lead, of_what, sentences, share, short_file, short_name, watts
from powerbench.reports.html.shown import plain
from powerbench.rundir.stacks import Frame
from powerbench.units import significant

WIDTH = 1200
ROW = 19
GAP = 1
NARROWEST = 0.6
LETTER = 7.25
PAD = 5
TOP = 78
BOTTOM = 12
# Letters of a line of notes.
NOTE = 165

# What kind of code a frame is: its colour, by day and by night, and its name in the legend.
KINDS = {
    "ours": ("powerbench and your code", "#f3c27a", "#8a5a12"),
    "python": ("Python libraries", "#bcd7f0", "#274c6e"),
    "native": ("C and C++", "#c9e3bd", "#355c2b"),
    "none": ("everything, and what is not attributed", "#e3e6e9", "#3a4148"),
}


class Placed(NamedTuple):
    """A frame in the picture, in pixels from the left and in rows from the top."""

    box: Box
    left: float
    width: float
    depth: int


def as_svg(burnt: Burnt) -> str:
    """The picture as a file of its own."""
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{picture(burnt, title=True)}'


def picture(burnt: Burnt, *, title: bool) -> str:
    """The picture as an element; `title`: with what it shows above it, and below it what must be known to read it."""
    flame = burnt.flame
    placed = list(place(tree_of(flame), flame))
    top = TOP if title else TOP - 40
    bottom = top + ROW * (1 + max((it.depth for it in placed), default=0)) + BOTTOM
    said = [line for note in sentences(burnt) for line in wrap(plain(note).replace("`", ""), NOTE)] if title else []
    height = bottom + ROW * len(said)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" class="flame">',
        f"<title>{text('Flame graph: ' + lead(burnt))}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}"/>',
    ]
    if title:
        lines.append(f'<text class="title" x="{PAD}" y="20">{text(of_what(burnt)[0])}</text>')
        lines.append(f'<text class="lead" x="{PAD}" y="40">{text(lead(burnt))}</text>')
    lines += [*legend(top - 14), *(line for it in placed for line in drawn(it, flame, top))]
    lines += [
        f'<text class="aside" x="{PAD}" y="{bottom + ROW * at + 8}">{text(line)}</text>' for at, line in enumerate(said)
    ]
    return "\n".join([*lines, "</svg>"])


def text(words: str) -> str:
    """Words as they may stand in XML."""
    return escape(plain(words), {'"': "&quot;"})


def amount(flame: Flame, cost: Cost) -> float:
    """What a frame is as wide as: joules where they are known of single lines, else seconds."""
    return cost.joules if is_in_joules(flame) else cost.seconds


def is_in_joules(flame: Flame) -> bool:
    """Whether widths are joules. Where all of them belong to the device they would draw one box, and tell nothing."""
    return flame.joules_reason is None and flame.device_j < 0.999 * flame.attributed.joules


def place(root: Box, flame: Flame) -> Iterator[Placed]:
    """The frames that are wide enough to be seen, callers first; the dearest of each caller at the left."""
    whole = amount(flame, flame.whole)
    if not whole:
        return
    root.cost = flame.whole
    if amount(flame, flame.unattributed) > 0:
        missing = Frame("not attributed: no stack was seen", "", 0)
        root.below[missing] = Box(missing, flame.unattributed)
    waiting = [Placed(root, 0.0, float(WIDTH), 0)]
    while waiting:
        it = waiting.pop()
        yield it
        left = it.left
        for box in sorted(it.box.below.values(), key=lambda below: -amount(flame, below.cost)):
            width = amount(flame, box.cost) / whole * WIDTH
            if width >= NARROWEST:
                waiting.append(Placed(box, left, width, it.depth + 1))
            left += width


def drawn(it: Placed, flame: Flame, top: int) -> Iterator[str]:
    """A frame: its box, what stands in it, and what is told of it where the mouse rests."""
    frame, cost = it.box.frame, it.box.cost
    y = top + ROW * it.depth
    width = max(it.width - GAP, NARROWEST)
    yield f"<g><title>{text(described(frame, cost, flame))}</title>"
    yield f'<rect class="{kind(frame)}" x="{it.left:.2f}" y="{y}" width="{width:.2f}" height="{ROW - GAP}" rx="2"/>'
    label = fitting(frame, cost, flame, room=int((width - 2 * PAD) / LETTER))
    if label:
        yield f'<text x="{it.left + PAD:.2f}" y="{y + 13}">{text(label)}</text>'
    yield "</g>"


def fitting(frame: Frame, cost: Cost, flame: Flame, *, room: int) -> str:
    """As much of the name and the joules as there is room for, in letters."""
    name, much = short_name(frame), figure(flame, cost)
    if len(name) + len(much) + 2 <= room:
        return f"{name}  {much}"
    if len(name) <= room:
        return name
    last = name.rpartition("::")[2].rpartition(".")[2]
    return last if len(last) <= room else f"{last[: room - 1]}…" if room >= 4 else ""


def figure(flame: Flame, cost: Cost) -> str:
    """`312 J`, or seconds where no joules are known of it."""
    return f"{significant(cost.joules)} J" if flame.joules_reason is None else f"{significant(cost.seconds)} s"


def described(frame: Frame, cost: Cost, flame: Flame) -> str:
    """All that is known of a frame, in a few lines."""
    joules = "" if flame.joules_reason is not None else f"{significant(cost.joules)} J, {watts(cost)} W, "
    where = f"\n{short_file(frame)}" if frame.file else ""
    return f"{frame.name}{where}\n{joules}{significant(cost.seconds)} s, {share(flame, cost):.1%}"


def kind(frame: Frame) -> str:
    """What kind of code it is."""
    if not frame.file:
        return "none"
    if not frame.file.endswith(".py") and not frame.file.startswith("<"):
        return "native"
    if "/site-packages/powerbench/" in frame.file:  # where pip puts us
        return "ours"
    return "python" if "/site-packages/" in frame.file or "/lib/python3" in frame.file else "ours"


def legend(y: int) -> Iterator[str]:
    """Which colour is which, in one line."""
    x = float(PAD)
    for name, (words, *_) in KINDS.items():
        yield f'<rect class="{name}" x="{x:.0f}" y="{y - 8}" width="10" height="10" rx="2"/>'
        yield f'<text class="aside" x="{x + 15:.0f}" y="{y + 1}">{text(words)}</text>'
        x += 15 + len(words) * LETTER * 0.95 + 25


def _colours(night: bool) -> str:
    return "".join(
        f".flame .{name}{{fill:{night_colour if night else day}}}" for name, (_, day, night_colour) in KINDS.items()
    )


STYLE = (
    ".flame{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace}"
    ".flame .page{fill:#fff}.flame text{fill:#1c2126;pointer-events:none}.flame .title{font-size:15px;font-weight:600}"
    ".flame .lead{font-size:13px}.flame .aside{font-size:11.5px;fill:#59626b}.flame g:hover rect{stroke:#1c2126}"
    f"{_colours(night=False)}"
    "@media (prefers-color-scheme:dark){.flame .page{fill:#14171a}.flame text{fill:#e4e8eb}"
    f".flame .aside{{fill:#9ea8b2}}.flame g:hover rect{{stroke:#e4e8eb}}{_colours(night=True)}}}"
)
