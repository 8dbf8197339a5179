"""Where the joules went, as it is shown: tables, a picture, a page, and what other programs read."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import msgspec
import pytest

from powerbench.analysis.flame import Cost, find_flame
from powerbench.records import DeviceRecord, RunRecord, WorkloadRecord
from powerbench.reports.flame import FLAME_FORMATS
from powerbench.reports.flame.burnt import Burnt, burn, short_file, short_name
from powerbench.reports.flame.svg import NARROWEST, WIDTH, kind
from powerbench.reports.flame.terminal import as_terminal, in_room
from powerbench.rundir import RunDir
from powerbench.rundir.load import Run, load_run
from powerbench.rundir.stacks import Frame, Stacks
from tests.analysis.test_flame import HOT_AND_COLD, RAPL, TEN_SECONDS
from tests.ranked import a_package, machine_record, trace_of, write_ranks
from tests.reports.speedscope import is_valid_speedscope
from tests.rundir import a_cell, a_record
from tests.rundir.stacks import LOOP, STEP, Stretch, a_frame, stacks_of

EVIL = a_frame('<script>alert("&")</script>\x1b[31m\u202e', file="/home/me/<b>evil</b>.py")
LINEAR = Frame("Linear.forward", "/opt/lib/python3.11/site-packages/torch/nn/modules/linear.py", 0)
ADDMM = Frame("at::native::addmm_out_cpu", "/opt/lib/python3.11/site-packages/torch/lib/libtorch_cpu.so", 0)
SVG = "{http://www.w3.org/2000/svg}"


def burnt(stacks: Stacks | None = None, *, metered: bool = True, **changes: Any) -> Burnt:
    """Ten steps of a second: two seconds of a product at 50 W, two of ours at 10 W, in turns."""
    turns: list[Stretch] = [
        (2.0 * at, (LOOP, STEP, LINEAR, ADDMM) if at % 2 == 0 else (LOOP, STEP, EVIL)) for at in range(5)
    ]
    record: RunRecord = a_record(
        **{"rails": RAPL if metered else {}, "workload": WorkloadRecord(samples_per_step=16)} | changes
    )
    found = stacks_of(("steps", turns)) if stacks is None else stacks
    curves = {"package-0": HOT_AND_COLD}
    run = Run(Path("runs/mine"), record, [TEN_SECONDS])
    return Burnt(run, found, find_flame(record, TEN_SECONDS, curves, found))


UNMETERED: dict[str, Any] = {"metered": False, "cell": a_cell(power="none")}


def test_the_tables_say_joules_seconds_watts_and_percent() -> None:
    shown = FLAME_FORMATS["terminal"].show(burnt())

    assert "10 measured steps: 340 J in 10s, 34.0 W on average; covers package-0." in shown
    own, total = shown.split("In these functions and all that they call")
    assert "    J      s     W     %" in own
    assert "  300   6.00  50.0  88.2  at::native::addmm_out_cpu (libtorch_cpu)" in own
    assert "0.000  0.000     -   0.0  not attributed: no stack was seen" in own
    assert "  340  10.0  34.0  100.0  training_step.step (workloads/steps.py)" in total
    assert "  300  6.00  50.0   88.2  Linear.forward (torch/nn/modules/linear.py)" in total


def test_a_function_that_only_one_calls_and_for_nothing_else_is_not_told_twice() -> None:
    shown = FLAME_FORMATS["terminal"].show(burnt())

    assert ADDMM.name in shown.split("In these functions and all that they call")[0]
    assert ADDMM.name not in shown.split("In these functions and all that they call")[1]


def test_the_tables_fit_a_terminal_and_say_how_far_to_trust_them() -> None:
    shown = FLAME_FORMATS["terminal"].show(burnt())

    assert max(map(len, shown.splitlines())) <= 78
    said = " ".join(shown.split())
    assert "py-spy 0.4.3 looked 100 times a second, Python's frames only" in said
    assert "on the machine's clock to within 0.20 ms" in said
    assert (
        "The meter is read each 100 ms: of functions that take turns within a few of its readings, some of the" in said
    )


def test_in_a_narrow_terminal_no_line_is_wider() -> None:
    for width in (78, 58):
        assert max(map(len, as_terminal(burnt(), width=width).splitlines())) <= width


def test_without_power_there_are_seconds_and_the_reason() -> None:
    shown = FLAME_FORMATS["terminal"].show(burnt(**UNMETERED))

    assert "10 measured steps: 10s. No joules: no meter was asked for (--power none)." in shown
    assert "  6.00  60.0  at::native::addmm_out_cpu (libtorch_cpu)" in shown
    assert " J" not in shown.split("In these functions themselves")[1]


def test_on_a_gpu_it_is_said_that_joules_are_the_steps() -> None:
    gpu = DeviceRecord(kind="mps", name="Apple M1 Max", timer="clock after torch.mps.synchronize")
    shown = FLAME_FORMATS["terminal"].show(burnt(device=gpu, cell=a_cell(device="mps")))

    assert "is attributed to the step as a whole (`training_step.step`), not to the line that happened to wait" in (
        " ".join(shown.split())
    )


def of_two_ranks(folder: Path) -> Burnt:
    """Ranks 2 and 3, on the second of two machines: twenty steps at 40 W, the last of which rank 3 ends 10 ms later."""
    steps = [trace_of([1000.0] * 20), trace_of([1000.0] * 19 + [1010.0])]
    rails = {"package-0": a_package(published_s=0.001)}
    record = machine_record(nnodes=2, node=1, rails=rails, settings={"py_spy": True})
    run = write_ranks(folder / "run", record, steps, watts={"package-0": 40.0})
    found = stacks_of(("steps", [(at, (LOOP, STEP, LINEAR)) for at in range(20)]))
    RunDir(run).stacks(2).write_bytes(msgspec.json.encode(found))
    return burn(load_run(run), window="measured", by_line=False)


def test_of_several_ranks_the_joules_are_those_of_all_and_that_is_said(tmp_path: Path) -> None:
    both = of_two_ranks(tmp_path)

    told = json.loads(FLAME_FORMATS["json"].show(both))
    # To the edge of the slowest rank, as in the report.
    assert (told["rank"], told["ranks"]) == (2, 2)
    assert (told["total_s"], round(told["total_j"], 6)) == (20.01, 800.4)
    for name in ("terminal", "svg", "html", "speedscope"):
        shown = " ".join(unescape(FLAME_FORMATS[name].show(both)).split())
        assert "Those of all 2 ranks, by the stacks of rank 2." in shown
    assert any("A line that waits for another rank has the joules of its work." in note for note in told["notes"])


@pytest.mark.parametrize(("how", "names"), [({}, ["joules", "seconds"]), (UNMETERED, ["seconds"])])
def test_the_speedscope_file_keeps_the_published_schema(how: dict[str, Any], names: list[str]) -> None:
    file = json.loads(FLAME_FORMATS["speedscope"].show(burnt(**how)))

    assert is_valid_speedscope(file)
    assert [profile["name"] for profile in file["profiles"]] == names
    assert file["profiles"][-1]["unit"] == "seconds"
    assert [round(sum(profile["weights"]), 6) for profile in file["profiles"]] == [340.0, 10.0][-len(names) :]
    dearest = [file["shared"]["frames"][at] for at in file["profiles"][0]["samples"][0]]
    assert [frame["name"] for frame in dearest] == [STEP.name, LINEAR.name, ADDMM.name]


@pytest.mark.parametrize("how", [{}, UNMETERED])
def test_the_picture_is_well_formed_and_escapes_every_name(how: dict[str, Any]) -> None:
    svg = FLAME_FORMATS["svg"].show(burnt(**how))

    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert "<script>" not in svg
    assert "\x1b" not in svg
    titles = [title.text or "" for title in root.iter(f"{SVG}title")]
    assert any(title.startswith('<script>alert("&")</script>') for title in titles)
    assert not [it for it in root.iter() if "href" in " ".join(it.attrib)]
    assert "prefers-color-scheme:dark" in svg


def test_boxes_are_as_wide_as_their_joules_and_stand_below_their_callers() -> None:
    root = ET.fromstring(FLAME_FORMATS["svg"].show(burnt()))

    boxes = {}
    for group in root.iter(f"{SVG}g"):
        title, box = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None
        assert box is not None
        boxes[(title.text or "").splitlines()[0]] = {name: float(box.get(name, "nan")) for name in ("x", "y", "width")}
    assert boxes["all"]["width"] == pytest.approx(WIDTH, abs=1.5)
    assert boxes[ADDMM.name]["width"] == pytest.approx(WIDTH * 300 / 340, abs=1.5)
    assert boxes["all"]["y"] < boxes[STEP.name]["y"] < boxes[LINEAR.name]["y"] < boxes[ADDMM.name]["y"]
    assert boxes[ADDMM.name]["x"] == boxes[STEP.name]["x"] == 0
    assert all(box["width"] >= NARROWEST for box in boxes.values())


def test_the_picture_alone_says_below_it_how_to_read_it() -> None:
    gpu = DeviceRecord(kind="mps", name="Apple M1 Max", timer="clock after torch.mps.synchronize")
    alone = FLAME_FORMATS["svg"].show(burnt(device=gpu, cell=a_cell(device="mps")))

    words = " ".join(text.text or "" for text in ET.fromstring(alone).iter(f"{SVG}text"))
    assert "is attributed to the step as a whole (training_step.step), not to the line that happened to wait" in words


def test_what_rounding_leaves_is_not_told_as_watts() -> None:
    found = burnt()
    nearly = replace(found.flame, whole=Cost(found.flame.whole.seconds + 1e-13, found.flame.whole.joules + 4e-12))

    assert nearly.unattributed == Cost(0.0, 0.0)


def test_labels_have_the_joules_where_there_is_room() -> None:
    root = ET.fromstring(FLAME_FORMATS["svg"].show(burnt()))

    labels = [label.text for label in root.iter(f"{SVG}text")]
    assert "training_step.step  340 J" in labels
    assert "at::native::addmm_out_cpu  300 J" in labels


def test_the_page_needs_no_other_file_and_runs_no_script() -> None:
    page = FLAME_FORMATS["html"].show(burnt())

    assert "<script" not in page
    assert "src=" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page
    assert page.count("<svg") == 1
    assert "&lt;script&gt;alert" in page


def test_the_json_has_null_and_never_zero_for_joules_that_nobody_knows() -> None:
    metered = json.loads(FLAME_FORMATS["json"].show(burnt()))
    told = json.loads(FLAME_FORMATS["json"].show(burnt(**UNMETERED)))

    assert (round(metered["total_j"], 6), metered["scope"], metered["joules_reason"]) == (340.0, "package-0", None)
    assert metered["frames"][0]["name"] == ADDMM.name
    assert round(metered["frames"][0]["self_j"], 6) == 300.0
    assert (told["total_j"], told["unattributed"]["j"]) == (None, None)
    assert {(it["self_j"], it["total_j"]) for it in told["frames"]} == {(None, None)}
    assert told["sampling"] == {"sampler": "py-spy 0.4.3", "rate_hz": 100, "native": False, "time_uncertainty_ms": 0.2}


@pytest.mark.parametrize(
    ("frame", "name", "file"),
    [
        (STEP, "training_step.step", "workloads/steps.py:80"),
        (LINEAR, "Linear.forward", "torch/nn/modules/linear.py"),
        (ADDMM, "at::native::addmm_out_cpu", "libtorch_cpu"),
        (Frame("wait", "/usr/lib/python3.11/threading.py", 327), "wait", "threading.py:327"),
        (Frame("read", "/usr/lib/x86_64-linux-gnu/libc.so.6", 0), "read", "libc"),
        (Frame("all", "", 0), "all", ""),
    ],
)
def test_files_are_named_as_briefly_as_one_knows_them_by(frame: Frame, name: str, file: str) -> None:
    assert (short_name(frame), short_file(frame)) == (name, file)


def test_a_long_name_loses_its_middle() -> None:
    assert in_room(Frame("a" * 30 + "b" * 30, "", 0), 23) == "a" * 10 + "..." + "b" * 10


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("/home/a/train.py", "ours"),
        ("/home/a/powerbench/powerbench/workloads/steps.py", "ours"),
        ("/opt/lib/python3.11/site-packages/powerbench/workloads/steps.py", "ours"),
        ("/opt/lib/python3.11/site-packages/torch/_tensor.py", "python"),
        ("/opt/lib/python3.11/site-packages/torch/lib/libtorch_cpu.so", "native"),
        ("<string>", "ours"),
        ("", "none"),
    ],
)
def test_a_step_of_ours_is_ours_wherever_we_are_installed(file: str, expected: str) -> None:
    assert kind(Frame("step", file, 1)) == expected
