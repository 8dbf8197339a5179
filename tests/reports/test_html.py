"""Runs as an HTML page: what it says, that it holds whatever a record holds as text, and that it stays small."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from powerbench.records import Clock, StepTrace
from powerbench.reports.html import as_html
from powerbench.reports.published import published_runs
from powerbench.rundir.load import Run, load_run
from powerbench.rundir.many import NOT_BEGUN
from tests.reports import a_phased_run, a_run, renamed
from tests.reports.sweeps import a_metered_run, a_sweep
from tests.rundir import GOLDEN, a_record, steps_lasting

VOID = ("meta", "br", "hr", "img", "input", "link")
EVIL = "<script>alert('bert')</script> & \"co\" $x^$"


class Page(HTMLParser):
    """A page taken apart: its elements with their attributes, and its text. Every tag must be closed in its order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def of(self, *tags: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.elements if tag in tags]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.words.append(data)


def page_of(*runs: Run) -> Page:
    return Page(as_html(runs))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """36 cells of a thousand steps with their power."""
    return a_sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def html_of_sweep(sweep: list[Run]) -> str:
    return as_html(sweep)


def test_the_page_of_36_cells_stays_below_two_megabytes(html_of_sweep: str) -> None:
    assert len(html_of_sweep.encode()) < 2_000_000
    assert Page(html_of_sweep).text.count("steady") >= 36
    assert html_of_sweep.count('<svg viewBox="0 0 380') == 38


def test_the_same_runs_give_the_same_bytes(sweep: list[Run]) -> None:
    assert as_html(sweep[:3]) == as_html(sweep[:3])


def test_no_two_elements_have_one_id_and_every_link_leads_somewhere(html_of_sweep: str) -> None:
    elements = [attributes for _, attributes in Page(html_of_sweep).elements]

    ids = [it["id"] for it in elements if "id" in it]
    assert len(ids) == len(set(ids))
    links = [it["href"] for it in elements if "href" in it]
    links += [f"#{name}" for it in elements for name in re.findall(r"url\(#([^)]+)\)", str(it))]
    links += [f"#{name}" for it in elements for name in it.get("aria-labelledby", "").split()]
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_the_page_needs_nothing_else_and_runs_no_script(html_of_sweep: str) -> None:
    page = Page(html_of_sweep)

    assert page.of("script", "link", "img", "iframe", "object", "base") == []
    assert re.findall(r"https?:|@import|url\((?!#)", html_of_sweep) == []
    (policy,) = [it["content"] for it in page.of("meta") if it.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline';")


def test_headings_tables_and_charts_can_be_heard(html_of_sweep: str) -> None:
    page = Page(html_of_sweep)

    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(it.get("scope") in ("col", "row", "rowgroup") for it in page.of("th"))
    assert len(page.of("caption")) == len(page.of("table")) > 3
    assert all(it.get("aria-label") or it.get("aria-hidden") for it in page.of("svg"))
    assert page.of("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.of("meta")


def test_what_was_measured_is_said_in_words_first(html_of_sweep: str) -> None:
    text = Page(html_of_sweep).text

    assert "bert-base-cased on Abacus 3000 CPU (30GB)" in text
    assert (
        "36 runs: training and inference, batches of 1 to 256, sequences of 128 and 512 tokens, float32, "
        "with torch 2.13.0. All are complete. None slowed down. Recorded on 2026-11-26 (UTC)."
    ) in text


def test_one_run_has_its_figures_at_the_top() -> None:
    page = page_of(a_run(step_ms=20, watts=40))

    assert (
        "One run: bert-base-cased, training, batch 16 x sequence 128, float32, dropout off, on cpu: Abacus" in page.text
    )
    assert "Latency 20.0 ms a step P5 to P95: 20.0 to 20.0 ms" in page.text
    assert "Energy 0.0500 J a sample 0.800 J a step" in page.text
    assert "Power 40.0 W on average" in page.text


@pytest.mark.parametrize(
    "evil",
    [
        lambda text: a_run(settings={"model": text}, watts=30),
        lambda text: a_run(notes=[text], reason=text, status="failed", watts=30),
        lambda text: renamed(a_run(watts=30), text),
        lambda text: a_run(
            facts={"processor": text, "torch": text, "host": text, text: text, "variables": {text: text}}
        ),
        lambda text: a_run(peak_memory_of=text, peak_memory_bytes=1),
        lambda text: a_run(unmetered={"rapl": text}, settings={"power": "rapl"}),
        lambda text: a_run(step_ms=None, status="oom", reason=text),
    ],
    ids=["model", "note and reason", "path", "environment", "memory", "meter", "no step"],
)
def test_whatever_a_record_holds_is_text(evil: Any) -> None:
    # Two of them, so that all charts and tables are there.
    html = as_html([evil(EVIL), evil(f"{EVIL} too"), a_run(watts=30)])

    page = Page(html)
    assert page.of("script", "b", "img") == []
    assert "<script" not in html.lower()
    assert EVIL in page.text


def test_a_model_name_with_a_script_in_it_stays_text_in_charts_too() -> None:
    runs = [a_run(settings={"model": name}, watts=30) for name in ("<script>x</script>", "a&b<i>")]

    page = page_of(*runs)

    assert "script>x" in page.text
    assert "128, a&b<i>" in page.text
    assert page.of("script", "i") == []


def test_letters_that_are_none_are_replaced() -> None:
    html = as_html([renamed(a_run(notes=["\x1b[31mred \u202edesrever \x00"]), "caf\udce9/run"), a_run()])

    assert html.encode()
    assert not set(html) & set("\x1b\x00\u202e\udce9")
    assert "\N{REPLACEMENT CHARACTER}[31mred" in html


def test_commands_in_notes_are_set_as_such() -> None:
    html = as_html([a_run(notes=["Type `powerbench doctor <x>` now.", "one ` alone"])])

    assert "Type <code>powerbench doctor &lt;x&gt;</code> now." in html
    assert "one ` alone" in html


def test_what_has_no_figure_has_its_reason_in_its_place() -> None:
    page = page_of(
        a_run(16),
        a_run(64, step_ms=None, status="oom", reason="torch could not get 2.5 GB"),
        a_run(32, status="timeout", reason="max_seconds was over", steps=20),
    )

    assert "1 complete, 1 out of memory (run 2), 1 out of time (run 3)." in page.text
    assert "run 2 training 64 \xd7 128 out of memory: torch could not get 2.5 GB".replace(" ", "") in re.sub(
        r"\s", "", page.text
    )
    assert "out of time: max_seconds was over" in page.text
    assert "extrapolated to ~ 29.8" not in page.text
    assert "There is no figure: no meter was recorded with this run." in page.text


def test_each_run_without_joules_says_why_where_another_has_them() -> None:
    page = page_of(a_run(watts=30), a_run(32, settings={"power": "none"}))

    assert "no meter was asked for (--power none)" in page.text
    assert "There is no figure" not in page.text


def test_a_run_that_never_ran_has_no_joules_for_that_reason() -> None:
    """And not since nobody asked for a meter: what it would have been metered with is not known."""
    page = page_of(
        a_run(watts=30),
        a_run(64, step_ms=None, status="oom", settings={"power": "none"}),
        a_run(128, step_ms=None, status="interrupted", reason=NOT_BEGUN),
    )

    told = page.text.partition("covers")[2].partition("Notes")[0].replace("\xa0", " ")
    assert "run 2 training 64 \xd7 128 out of memory run 3 training 128 \xd7 128 not begun" in told
    assert "no meter was" not in page.text


def test_notes_are_said_once_with_their_runs() -> None:
    page = page_of(
        a_run(16, notes=["All of us.", "Swap grew by 3 MB."]),
        a_run(32, notes=["All of us.", "Swap grew by 512 MB."]),
        a_run(64, notes=["All of us.", "Only me."]),
    )

    assert page.text.count("All of us.") == 1
    assert "All of us. (all runs)" in page.text
    assert "Swap grew by 3 MB. ( run 1 ; the same with other numbers: run 2 )" in page.text
    assert "Only me. ( run 3 )" in page.text
    assert "extrapolated from" not in page.text


def test_what_differs_between_the_runs_is_told_apart_from_what_does_not() -> None:
    page = page_of(a_run(), a_run(facts={"torch": "2.12.1"}), a_run(facts={"load_1min": 3.0}))

    told = page.text.partition("Machine and software")[2]
    assert "torch 2.13.0+cpu 1, 3 2.12.1 2" in told.partition("The same in all runs:")[0]
    assert "processor Abacus 3000" in told.partition("The same in all runs:")[2]
    assert "training 16 \xd7 128, torch 2.12.1" in page.text.replace("\xa0", " ")


def test_settings_are_told_as_they_were_given_and_only_of_runs_that_have_them() -> None:
    """What was not set is not called unrecorded; a recording of power has no settings."""
    timed = {"sync_every": 0, "min_seconds": 10.0, "idle_seconds": 0.0, "max_seconds": 6.0}
    facts = {"processor": "Abacus 3000", "host": "alpha"}
    recording = Run(Path("runs/power"), a_record(cell=None, device=None, environment=facts), [StepTrace()])

    page = page_of(a_run(settings=timed), a_run(settings=timed | {"max_seconds": None}), recording)

    told = page.text.partition("Settings that differ")[2].partition("Machine and software")[0]
    assert "time limit, s 6 1 not set 2 The same in all runs that have it:" in told
    assert "least time, s 10 " in told
    assert "steps from wait to wait all of them" in told
    assert "rest before the steps, s 0 " in told
    assert "not recorded" not in page.text


def test_a_fact_of_thousands_of_letters_is_cut() -> None:
    page = page_of(a_run(facts={"variables": {"NVIDIA_REQUIRE_CUDA": "cuda>=12 " * 1000}}))

    assert "variable NVIDIA_REQUIRE_CUDA cuda>=12" in page.text
    assert "\u2026 (and 8,840 more letters)" in page.text


def test_a_slowdown_is_said_at_the_top_and_beside_its_trace() -> None:
    slow = a_run()
    trace = steps_lasting(*[20 + at % 3 for at in range(100)], *[30 + at % 3 for at in range(100)])

    page = page_of(Run(slow.path, slow.record, [trace]), a_run(32))

    assert "1 slowed down (run 1), 1 stayed steady." in page.text
    assert "slows down, +48%" in page.text
    assert "rising by 48% at step 100" in page.text


def test_where_it_cannot_be_told_whether_steps_slowed_down_that_is_said_at_the_top() -> None:
    wandering = a_run(32)
    trace = steps_lasting(*[20 + 10 * (at // 4 % 2) for at in range(24)])

    page = page_of(a_run(), Run(wandering.path, wandering.record, [trace]))

    assert "none slowed down" not in page.text.lower()
    assert "1 wandered too much to tell (run 2), 1 stayed steady." in page.text


def test_what_was_never_begun_is_called_so_and_makes_no_names_longer() -> None:
    """Its copy was not chosen yet; that is no difference from the others."""
    other = {"threads": 4, "host": "alpha"}
    begun = a_run(settings={"copy": "blocking", "sync_every": 1}, notes=["It rained."])
    like_it = a_run(32, facts=other, settings={"copy": "blocking", "sync_every": 1}, notes=["It rained."])
    not_begun = a_run(
        *(64, 128, None),
        facts=other,
        status="interrupted",
        reason=NOT_BEGUN,
        clock=Clock(boot_id=None, start_monotonic_ns=0, start_unix_ns=0),
    )

    page = page_of(begun, like_it, not_begun)

    assert "2 complete, 1 not begun (run 3)." in page.text
    assert "It rained. (all runs)" in page.text
    assert "interrupted" not in page.text
    assert "64 \xd7 128 not measured not begun" in page.text
    assert "sync every" not in page.text


def test_machines_stand_side_by_side_with_the_published_ones() -> None:
    page = page_of(a_run(), a_run(step_ms=119, settings={"device": "cuda"}, facts={"host": "beta"}), *published_runs())

    assert "2 runs" in page.text
    told = page.text.partition("bert-base-cased, training")[2]
    assert "Abacus 3000 CPU (24GB) NVIDIA H100 80GB HBM3 M1 Max CPU (32GB), 2022-05" in told
    assert "16 \xd7 128 2m 29s 12s 2m 29s 43s" in told
    assert "out of memory" in told


def test_the_published_tables_stand_alone_too() -> None:
    page = page_of(*published_runs())

    assert page.text.count("The published tables") == 2
    assert page.text.count("Suspect: ") == 4
    assert "Run by run" not in page.text


def test_a_run_that_was_not_waited_for_has_a_mean_and_no_trace() -> None:
    page = page_of(Run(Path("runs/one"), a_record(), [steps_lasting(*[None] * 99, 2000)]))

    assert "20.0 ms a step" in page.text
    assert "There is nothing to draw" in page.text


def test_power_alone_has_a_page() -> None:
    record = a_record(cell=None, command=["make", "-j8"], device=None, workload=None)

    page = page_of(Run(Path("runs/power"), record, [StepTrace()]))

    assert "Power while this ran: make -j8." in page.text
    assert "A step is" not in page.text


def test_runs_of_long_ago_have_a_page() -> None:
    assert "sleep on AMD EPYC CPU (24GB)" in page_of(load_run(GOLDEN / "schema-1")).text


def test_traces_beyond_the_most_that_are_drawn_are_left_out_and_the_page_says_so() -> None:
    page = Page(as_html([a_run(at, step_ms=20, steps=2) for at in range(1, 5)], most_traces=2))

    assert "The charts and verdicts of 2 more runs are left out" in page.text
    assert sum("Run " in it.get("aria-label", "") for it in page.of("svg")) == 2


def test_a_partial_recording_of_power_ends_where_it_ended(tmp_path: Path) -> None:
    run = a_metered_run(tmp_path / "it", "training", 8, 128, steps=1000, model="bert-tiny", seed=1)
    energy = tmp_path / "it/energy.csv"
    lines = energy.read_text().splitlines(keepends=True)
    energy.write_text("".join(lines[: len(lines) * 3 // 4]))

    page = page_of(run)

    assert "The energy is partial" in page.text
    assert "in part" in page.text


def _contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2 between two colours."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [it / 12.92 if it <= 0.04045 else ((it + 0.055) / 1.055) ** 2.4 for it in parts]
    return sum(share * it for share, it in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _palettes(html: str) -> Iterator[dict[str, str]]:
    found: dict[str, str] = {}
    for block in re.findall(r":root \{(.*?)\}", html, re.DOTALL):
        found = found | dict(re.findall(r"--(\w+): (#\w{6})", block))
        yield found


def test_text_and_charts_stand_out_by_day_and_by_night() -> None:
    palettes: Sequence[dict[str, str]] = list(_palettes(as_html([a_run()])))

    assert len(palettes) == 2
    for its in palettes:
        for name in ("ink", "muted", "link"):
            assert _contrast(its[name], its["page"]) >= 4.5, name
        for name in ("warn", "ink"):
            assert _contrast(its[name], its["differs"]) >= 4.5, name
        for name in ("time", "power", "mark", *(f"machine{at}" for at in range(1, 7))):
            assert _contrast(its[name], its["page"]) >= 3, name


def test_where_a_chart_has_no_room_for_all_words_the_shape_stays() -> None:
    events = {"device": "cuda", "copy": "async", "sync_every": 0}
    page = page_of(
        a_run(16, 128, 40, settings=events),
        a_run(32, 128, 60, settings=events | {"copy": "blocking", "dtype": "bfloat16"}),
        a_run(32, 512, 90, settings=events | {"sync_every": 1, "model": "bert-large-cased"}),
    )

    text = page.text.replace("\xa0", " ")
    assert "training 32 \xd7 128, bert-base\u2026" in text
    assert "training 32 \xd7 512, bert-large\u2026" in text
    assert "training 32 \xd7 512, bert-large-cased, float32, async copy, each step waited for" in text
    assert "training 16 \xd7 128, bert-base-cased, float32, async copy 100" in text
    assert "sync every" not in text


def test_the_best_is_chosen_among_runs_of_the_same_work_alone() -> None:
    """A step in bfloat16, or without dropout, or on another machine, is another one however fast it is."""
    page = page_of(
        a_run(16, step_ms=400),
        a_run(32, step_ms=700),
        a_run(32, step_ms=100, settings={"dtype": "bfloat16"}),
        a_run(64, step_ms=900, settings={"dropout": True}),
        a_run(32, step_ms=50, facts={"host": "beta"}),
        a_run(64, step_ms=90, facts={"host": "beta"}),
    )

    told = page.text.partition("fewest joules a sample")[2].partition("Time What a step takes")[0]
    kind = "bert-base-cased, training, sequence 128, float32, dropout off"
    assert " ".join(told.replace("\N{EN DASH} no figure", "").split()) == (
        f"{kind} 45.7 samples/s with batch 32 on Abacus 3000 CPU (24GB) no. 1 ( run 2 ) "
        f"{kind} 711 samples/s with batch 64 on Abacus 3000 CPU (24GB) no. 2 ( run 6 )"
    )


def test_no_letters_stand_at_the_end_of_a_row_that_say_nothing() -> None:
    settings = {"device": "cuda", "sync_every": 0}
    page = page_of(
        a_run(32, settings=settings | {"copy": "async"}),
        a_run(32, settings=settings | {"copy": "blocking", "dtype": "bfloat16"}),
    )

    text = page.text.replace("\xa0", " ")
    assert "training 32 \xd7 128, float32\u2026" in text
    assert "training 32 \xd7 128, bfloat16\u2026" in text


def test_a_run_that_ended_early_says_so_side_by_side() -> None:
    ended = a_run(step_ms=30, steps=12, status="timeout", reason="max_seconds was over", facts={"host": "beta"})

    told = page_of(a_run(), ended).text.partition("Side by side The time")[2]

    assert "16 \xd7 128 2m 29s ~3.00s (out of time)" in told


def test_cells_that_differ_in_their_steps_stand_side_by_side_in_rows_of_their_own() -> None:
    page = page_of(a_run(), a_run(steps=1000, step_ms=1500), a_run(step_ms=119, facts={"host": "beta"}))

    told = page.text.partition("Side by side The time")[2]
    assert "16 \xd7 128, 100 steps 2m 29s 12s 16 \xd7 128, 1,000 steps 2m 30s not measured" in told


def test_a_time_is_written_in_one_way_on_the_whole_page() -> None:
    page = page_of(a_run(step_ms=123_640), *published_runs())

    assert page.text.count("3h 26m 4s") >= 3  # at the top, in its table, and beside the published ones
    assert "3h 26m" not in page.text.replace("3h 26m 4s", "")


def test_phases_have_a_table_where_a_run_was_measured_for_them() -> None:
    page = Page(as_html([a_phased_run(16, 1000, watts=20), a_run(64)]))

    assert "Phases of a step" in page.text
    assert "400 ms 600 ms, 12.0 J" in page.text
    assert "Phases of a step" not in Page(as_html([a_run(64)])).text


def test_nothing_is_said_of_data_and_weights_that_is_not_true_of_all_runs() -> None:
    page = Page(as_html([a_run(settings={"dataset": "reviews.csv", "weights": "pretrained", "optimizer": "sgd"})]))

    assert "Batches are random tokens" not in page.text
    assert "Adam" not in page.text
    assert "Weights are random" not in page.text
