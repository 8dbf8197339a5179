"""A comparison on the screen: exact text, in eighty columns, and words for whatever has no ratio."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from powerbench.analysis.compare import Ratio, Ratios
from powerbench.analysis.comparison import Compared, Comparison, Gate, NotCompared
from powerbench.reports.comparison import as_sentences, as_text


def ratio(a: float | None, b: float | None, value: float, low: float, high: float, verdict: Any) -> Ratio:
    return Ratio(a=a, b=b, ratio=value, ci95=(low, high), interval_of="processes", verdict=verdict)


LATENCY = ratio(20.0, 25.0, 1.25, 1.2011, 1.3049, "slower")
THROUGHPUT = ratio(800.0, 640.0, 0.8, 0.7664, 0.8326, "slower")
ENERGY = ratio(0.401, 0.402, 1.0025, 0.991, 1.011, "indistinguishable")


def a_cell(title: str = "bert-tiny, inference, batch 16 x sequence 128", **changes: Any) -> Compared:
    cell = Compared(
        cell={},
        title=title,
        processes=(3, 5),
        is_metered=True,
        latency_ms=LATENCY,
        samples_per_s=THROUGHPUT,
        j_per_step=ENERGY,
        energy_reason=None,
    )
    return msgspec.structs.replace(cell, **changes)


def a_comparison(*cells: Compared, **changes: Any) -> Comparison:
    comparison = Comparison(
        a="runs/before",
        b="runs/after",
        threshold=0.05,
        cells=list(cells),
        geometric_mean=None,
        differs={},
        not_compared=[],
        notes=[],
    )
    return msgspec.structs.replace(comparison, **changes)


def test_where_nobody_told_the_samples_of_a_step_the_rate_is_one_of_steps() -> None:
    untold = a_cell(samples_per_s=msgspec.structs.replace(THROUGHPUT, a=None, b=None))

    lines = [line.split() for line in as_text(a_comparison(untold)).splitlines()]
    assert ["Steps/s", "0.800", "0.766", "to", "0.833", "slower"] in lines
    assert "\nThroughput, steps/s\n" in as_text(a_comparison(untold, untold))
    assert "\nThroughput, samples/s\n" in as_text(a_comparison(untold, a_cell()))


def test_one_cell_is_a_table_of_quantities() -> None:
    assert as_text(a_comparison(a_cell())) == (
        "A  runs/before (3 runs)\n"
        "B  runs/after (5 runs)\n"
        "\n"
        "bert-tiny, inference, batch 16 x sequence 128\n"
        "\n"
        "                  A      B  B / A    95% interval\n"
        "  Median, ms   20.0   25.0  1.250  1.201 to 1.305  slower\n"
        "  Samples/s     800    640  0.800  0.766 to 0.833  slower\n"
        "  J a step    0.401  0.402  1.002  0.991 to 1.011  indistinguishable\n"
        "\n"
        "Nothing else that was recorded differs between A and B."
    )


def test_how_many_runs_a_side_has_stays_on_one_line() -> None:
    comparison = a_comparison(a_cell(), a=f"/home/{'x' * 65}", b="b")

    assert as_text(comparison).splitlines()[:3] == [f"A  /home/{'x' * 65}", "   (3 runs)", "B  b (5 runs)"]


def test_several_cells_are_a_table_for_each_quantity_with_their_mean() -> None:
    mean = Ratios(
        latency_ms=ratio(None, None, 1.25, 1.22, 1.28, "slower"),
        samples_per_s=None,
        j_per_step=None,
        energy_reason="not every cell has a ratio of energy",
    )
    cells = [
        a_cell(f"bert-tiny, inference, batch {batch} x sequence 128", samples_per_s=None, j_per_step=None)
        for batch in (16, 256)
    ]

    text = as_text(a_comparison(*cells, geometric_mean=mean))

    assert text.split("\n\n")[1:3] == [
        "bert-tiny, inference",
        "Latency, median step in ms\n"
        "                     A     B  B / A    95% interval\n"
        "  16 x 128        20.0  25.0  1.250  1.201 to 1.305  slower\n"
        "  256 x 128       20.0  25.0  1.250  1.201 to 1.305  slower\n"
        "  geometric mean              1.250  1.220 to 1.280  slower",
    ]


def test_what_differs_is_one_table() -> None:
    text = as_text(
        a_comparison(a_cell(), differs={"torch": (["2.12.0"], ["2.13.0"]), "power_mode": (["normal"], ["low power"])})
    )

    assert text.split("\n\n")[-1] == (
        "  What differs  A                               B\n"
        "  torch         2.12.0                          2.13.0\n"
        "  power mode    normal                          low power"
    )


def test_a_path_is_folded_behind_its_slashes() -> None:
    path = "/home/somebody/projects/powerbench/.venv/bin/python"

    text = as_text(a_comparison(a_cell(), differs={"interpreter": ([path], ["/usr/bin/python3"])}))

    assert text.split("\n\n")[-1].splitlines()[1:] == [
        "  interpreter   /home/somebody/projects/        /usr/bin/python3",
        "                powerbench/.venv/bin/python",
    ]


def test_energy_that_is_not_compared_has_its_reason() -> None:
    cell = a_cell(
        j_per_step=None, energy_reason="scope is gpu0 in A and gpu1 in B: these joules are of different things"
    )

    text = as_text(a_comparison(cell))

    assert "J a step" not in text
    assert (
        "  Energy is not compared: scope is gpu0 in A and gpu1 in B: these joules are\n    of different things." in text
    )


def test_what_was_left_out_and_notes_stand_below() -> None:
    missing = NotCompared(
        cell={}, title="bert-large", side="both", runs=[], reason="out of memory: at step 3", is_gap=False
    )

    text = as_text(a_comparison(a_cell(), not_compared=[missing], notes=["It rained."]))

    assert text.split("\n\n")[-2:] == [
        "Not compared\n  A and B: bert-large: out of memory: at step 3",
        "  Note: It rained.",
    ]


def test_an_interval_that_is_unknown_is_a_word() -> None:
    alone = msgspec.structs.replace(LATENCY, ci95=None, verdict="inconclusive")

    [line] = [it for it in as_text(a_comparison(a_cell(latency_ms=alone))).splitlines() if "Median" in it]
    assert line.split() == ["Median,", "ms", "20.0", "25.0", "1.250", "unknown", "inconclusive"]


def test_no_line_is_wider_than_a_terminal() -> None:
    huge = ratio(1234567.0, 7654321.0, 6.2, 0.0001234, 61234.5, "indistinguishable")
    cells = [
        a_cell(
            f"a-model-with-a-very-long-name-{at}, training, batch {10**at} x sequence 128",
            latency_ms=huge,
            j_per_step=None,
            energy_reason="a long story " * 20,
        )
        for at in range(4)
    ]
    missing = NotCompared(cell={}, title="x " * 60, side="A", runs=[], reason="y " * 60, is_gap=True)
    differs = {"a_fact_with_a_long_name_indeed": (["word " * 20], ["b" * 70])}

    text = as_text(a_comparison(*cells, not_compared=[missing], differs=differs, notes=["note " * 60]))

    assert [line for line in text.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("passed", ["Passed: no cell costs 5% more in B."]),
        ("regressed", ["Regressed: B costs at least 5% more.", "  because"]),
        (
            "inconclusive",
            [
                "Inconclusive: whether B costs 5% more cannot be told. Measure more repeats a",
                "side.",
                "  because",
            ],
        ),
        (
            "could not measure",
            ["Could not measure: not everything that A has could be compared.", "  because"],
        ),
    ],
)
def test_a_gate_says_what_it_found(outcome: Any, said: list[str]) -> None:
    assert list(as_sentences(Gate(fail_above=0.05, outcome=outcome, reasons=["because"]))) == said
