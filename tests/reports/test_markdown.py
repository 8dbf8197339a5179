"""Runs as Markdown: exact tables in the form of the published ones, and text that stays text."""

from __future__ import annotations

from powerbench.records import StepTrace
from powerbench.reports.markdown import as_markdown
from powerbench.reports.published import published_runs
from powerbench.rundir.load import Run
from tests.reports import a_phased_run, a_run


def table(markdown: str, title: str) -> list[str]:
    """The lines of the table under a title."""
    lines = markdown.splitlines()
    rest = lines[lines.index(f"**{title}**:") + 2 :]
    return rest[: rest.index("")] if "" in rest else rest


def test_machines_are_columns_and_the_union_of_cells_are_rows() -> None:
    runs = [
        a_run(16, 128, 1490, watts=20),
        a_run(64, 128, 5120, steps=12, watts=20),
        a_run(256, 128, None, status="oom", reason="no room"),
        a_run(16, 512, 6820, steps=5, status="timeout", reason="max_seconds was over", watts=20),
        a_run(64, 128, 1770, settings={"device": "mps"}, facts={"processor": "Apple M1 Max", "host": "mac"}),
    ]

    markdown = as_markdown(runs)

    assert markdown.splitlines()[2:10] == [
        "### `bert-base-cased`",
        "",
        "- Abacus 3000 CPU (24GB): torch 2.13.0+cpu, 2 threads, dropout off, joules of package-0",
        "- Apple M1 Max GPU (24GB): torch 2.13.0+cpu, dropout off, blocking copy",
        "",
        "**Training**:",
        "",
        "| Batch size | Sequence length | Abacus 3000 CPU (24GB) | Apple M1 Max GPU (24GB) |",
    ]
    assert table(markdown, "Training")[2:] == [
        "| 16         | 128             | 2m 29s                 |                         |",
        "| 64         | 128             | ~8m 32s                | 2m 57s                  |",
        "| 256        | 128             | out of memory          |                         |",
        "| 16         | 512             | ~11m 22s (out of time) |                         |",
    ]
    assert table(markdown, "Training, J/step") == [
        "| Batch size | Sequence length | Abacus 3000 CPU (24GB) |",
        "| ---------- | --------------- | ---------------------- |",
        "| 16         | 128             | 29.8                   |",
        "| 64         | 128             | 102                    |",
        "| 16         | 512             | 136                    |",
    ]
    assert [line.split("|")[3].strip() for line in table(markdown, "Training, J/sample")[2:]] == [
        "1.86",
        "1.60",
        "8.53",
    ]
    assert [line.split("|")[3].strip() for line in table(markdown, "Training, samples/J")[2:]] == [
        *("0.537", "0.625", "0.117")
    ]
    assert [line.split("|")[3].strip() for line in table(markdown, "Training, W")[2:]] == ["20.0", "20.0", "20.0"]
    ours = "- Abacus 3000 CPU (24GB), bert-base-cased training, batch"
    assert markdown.splitlines()[-8:] == [
        "**Not completed**:",
        "",
        f"{ours} 256 x sequence 128: out of memory: no room",
        f"{ours} 16 x sequence 512: out of time: max\\_seconds was over",
        "",
        "**No joules**:",
        "",
        "- no meter was recorded with this run (1 of 4 runs, those of Apple M1 Max GPU (24GB))",
    ]


def test_repeats_say_how_many_they_are_and_how_far_apart() -> None:
    markdown = as_markdown([a_run(step_ms=step_ms) for step_ms in (1490, 1480, 1510)])

    assert table(markdown, "Training")[2] == "| 16         | 128             | 2m 29s (3 runs, 2.0% apart) |"


def test_training_and_inference_stand_apart() -> None:
    markdown = as_markdown([a_run(settings={"mode": "inference"}), a_run()])

    assert markdown.index("**Training**:") < markdown.index("**Inference**:")


def test_the_published_machines_stand_beside_ours_with_vintage_and_comparability() -> None:
    markdown = as_markdown([a_run(16, 128, 1480), *published_runs()])

    head, _, first, *rest = table(markdown, "Training")
    assert head.split(" | ")[2:5] == [
        "Abacus 3000 CPU (24GB)",
        "M1 Max CPU (32GB), 2022-05",
        "M1 Max GPU (32GB), 2022-05",
    ]
    assert len(head.split("|")) == 2 + 2 + 1 + 4 + 7
    assert [field.strip() for field in first.split("|")[1:6]] == ["16", "128", "2m 28s", "2m 29s", "43s"]
    assert len(rest) == 5
    assert "out of memory" in rest[1]
    assert (
        "- V100 (16GB), 2022-05: torch 1.12/1.13 nightly, May 2022, 310 W at the peak; comparability: exact" in markdown
    )


def test_what_was_recorded_as_text_stays_text() -> None:
    nasty = "<script>alert(1)</script> | a *b* [c](d)\nnew `line`"
    runs = [a_run(), a_run(64, 128, None, status="failed", reason=nasty, settings={"model": "a|b"})]

    markdown = as_markdown(runs)

    assert "\\<script\\>alert(1)\\</script\\> \\| a \\*b\\* \\[c\\](d) new \\`line\\`" in markdown
    assert "<script>" not in markdown


def test_runs_without_anything_are_shown_too() -> None:
    run = Run(a_run().path, a_run().record, [StepTrace()])

    assert "| 16         | 128             | complete               |" in as_markdown([run])


def test_a_cell_with_several_numbers_of_steps_has_a_row_for_each() -> None:
    lines = as_markdown([a_run(), a_run(steps=1000, status="timeout", reason="too long")]).splitlines()

    assert "| Batch size | Sequence length | Steps | Abacus 3000 CPU (24GB) |" in lines
    assert "| 16         | 128             | 100   | 2m 29s                 |" in lines
    assert "| 16         | 128             | 1,000 | 2m 29s (out of time)   |" in lines
    assert "- Abacus 3000 CPU (24GB), bert-base-cased training, batch 16 x sequence 128, 1,000 steps: out" in "\n".join(
        lines
    )


def test_phases_are_a_list_below_the_tables() -> None:
    lines = as_markdown([a_phased_run(16, 2000, watts=20)]).splitlines()

    assert lines[lines.index("**Phases of a step**:") + 2] == (
        "- Abacus 3000 CPU (24GB), bert-base-cased training, batch 16 x sequence 128: "
        "forward 800 ms (16.0 J), backward 1,200 ms (24.0 J)"
    )
