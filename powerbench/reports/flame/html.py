"""Where the joules went as one page that opens anywhere: the picture, the functions, and what to know of them."""

from __future__ import annotations

from importlib.resources import files

import powerbench
from powerbench.analysis.flame import Cost, rows_of
from powerbench.reports.flame.burnt import Burnt, lead, of_what, sentences, share, short_file, short_name, watts
from powerbench.reports.flame.svg import is_in_joules, picture
from powerbench.reports.html.shown import plain
from powerbench.units import significant

TOP = 40


def as_html(burnt: Burnt) -> str:
    """The page. It needs no other file and runs no script; whatever a record holds is shown as text."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    here, pages = files(__name__.rpartition(".")[0]), files("powerbench.reports.html")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    what, where = map(plain, of_what(burnt))
    rows = [
        (short_name(row.frame), short_file(row.frame), *_figures(burnt, row.own), *_figures(burnt, row.total))
        for row in rows_of(burnt.flame)[:TOP]
    ]
    return environment.from_string((here / "page.html.jinja").read_text("utf-8")).render(
        version=powerbench.__version__,
        style=Markup((pages / "style.css").read_text("utf-8")),
        what=what,
        where=where,
        lead=plain(lead(burnt)),
        picture=Markup(picture(burnt, title=False)),
        in_joules=is_in_joules(burnt.flame),
        metered=burnt.flame.joules_reason is None,
        rows=[tuple(map(plain, row)) for row in rows],
        missing=[*_figures(burnt, burnt.flame.unattributed)],
        notes=[plain(note).replace("`", "") for note in sentences(burnt)],
        run=plain(str(burnt.run.path)),
    )


def _figures(burnt: Burnt, cost: Cost) -> tuple[str, ...]:
    """Joules, seconds, watts, percent; without joules, seconds and percent."""
    part, seconds = f"{share(burnt.flame, cost):.1%}", significant(cost.seconds)
    if burnt.flame.joules_reason is not None:
        return seconds, part
    return significant(cost.joules), seconds, watts(cost), part
