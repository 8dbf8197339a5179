"""Runs as one HTML page that opens anywhere: offline, on a phone, on paper, by day and by night."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import powerbench
from powerbench.reports.beside import COMPARABILITY
from powerbench.reports.figures import is_not_begun
from powerbench.reports.html import facts, tables, words
from powerbench.reports.html.columns import side_by_side
from powerbench.reports.html.joules import FORMS, Point, joules_chart
from powerbench.reports.html.shown import Content, Shown, plain, show_runs
from powerbench.reports.html.spread import Row, latency_chart
from powerbench.rundir.load import Run

if TYPE_CHECKING:
    from markupsafe import Markup

MOST_TRACES = 60


def as_html(runs: Sequence[Run], *, most_traces: int = MOST_TRACES) -> str:
    """The page: summary, tables, charts, notes, surroundings, method. It needs no other file and runs no script.

    The same runs give the same page, byte for byte. Whatever a record holds is shown as text. Traces are drawn and
    judged of the first `most_traces` runs: beyond that the page would grow past what a browser likes to scroll.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def as_text(value: Any) -> Any:
        if value is None:
            raise TypeError("what is not known must be shown in words")
        return value if isinstance(value, Markup) else plain(str(value))

    here = files(__name__)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=as_text
    )
    template = environment.from_string((here / "page.html.jinja").read_text("utf-8"))
    return template.render(
        style=Markup((here / "style.css").read_text("utf-8")),
        markup=Markup,
        numbers_in_words=facts.numbers_in_words,
        in_a_line=words.in_a_line,
        verdict_of=words.verdict_sentence,
        with_code=_with_code,
        **_content(show_runs(runs, most_traces=most_traces), most_traces),
    )


def _with_code(text: str) -> Markup:
    """Text in which commands stand between backticks."""
    from markupsafe import Markup, escape

    parts = [escape(plain(part)) for part in text.split("`")]
    if len(parts) % 2 == 0:  # one is left over
        return escape(plain(text))
    return Markup("").join(Markup("<code>%s</code>") % part if at % 2 else part for at, part in enumerate(parts))


def _content(content: Content, most_traces: int) -> dict[str, Any]:
    """What the template shows, by name."""
    runs = content.runs
    with_steps = [shown for shown in runs if shown.record.cell is not None]
    rows = _rows(with_steps[:most_traces])
    points = _points(with_steps[:most_traces])
    phase_names = tables.phase_names(runs)
    energy = [tables.energy_row(shown) for shown in runs]
    reasons = {row.reason for row in energy if not row.shown.has_nothing_measured}
    return {
        "version": powerbench.__version__,
        "title": words.title(content),
        "lead": words.lead(runs),
        "key_figures": words.key_figures(runs),
        "runs": runs,
        "begun": sum(not is_not_begun(shown.entry) for shown in runs),
        "untraced": max(0, len(runs) - most_traces),
        "most_traces": most_traces,
        "machines": content.machines,
        "forms": FORMS,
        "comparability": COMPARABILITY,
        "best": tables.best_of_each(runs),
        "times": [tables.time_row(shown) for shown in with_steps],
        "phase_names": phase_names,
        "phases": [tables.phase_row(shown, phase_names) for shown in runs if shown.summary.phases],
        "by_operator": tables.operator_tables(runs),
        "energies": energy,
        "no_energy": next(iter(reasons)) if len(reasons) == 1 and None not in reasons else None,
        "beside": side_by_side([*(shown.entry for shown in runs), *content.published]),
        "notes": words.notes(runs),
        "latencies": latency_chart(rows) if len(rows) > 1 else None,
        "joules": joules_chart(points) if len(points) > 1 else None,
        "settings": facts.compare(
            [facts.settings_of(shown.record) for shown in runs], missing=_of_steps(runs, "not set")
        ),
        "surroundings": facts.compare(
            [facts.surroundings_of(shown.record) for shown in runs], missing=_of_steps(runs, "not recorded")
        ),
        "meters": tables.meters(runs),
        "timers": words.timers(runs),
        "has_ranks": any(shown.record.ranks > 1 for shown in runs),
        "memory": words.memory_words(runs),
    }


def _of_steps(runs: Sequence[Shown], word: str) -> list[str | None]:
    """The word for each run of steps, and None for recordings of power, which have no model and no settings."""
    return [None if shown.record.cell is None else word for shown in runs]


def _rows(runs: Sequence[Shown]) -> list[Row]:
    return [
        Row(shown.number, shown.machine, shown.brief, shown.summary.latency_ms)
        for shown in runs
        if shown.summary.latency_ms is not None and shown.summary.latency_ms.median is not None
    ]


def _points(runs: Sequence[Shown]) -> list[Point]:
    return [point for shown in runs if (point := _point(shown)) is not None]


def _point(shown: Shown) -> Point | None:
    energy, speed = shown.summary.energy, shown.summary.samples_per_s
    if energy is None or not energy.j_per_sample or energy.j_per_sample < 0 or not speed:
        return None
    interval = None
    if energy.j_per_step and energy.j_per_step_sampling_ci95 is not None:
        low, high = energy.j_per_step_sampling_ci95
        interval = tuple(energy.j_per_sample * edge / energy.j_per_step for edge in (low, high))
    return Point(
        number=shown.number,
        machine=shown.machine,
        hollow=shown.summary.mode == "inference",
        speed=speed,
        joules=energy.j_per_sample,
        interval=None if interval is None else (interval[0], interval[1]),
    )
