"""The command to measure a cell again: what is not as usual, and nothing else."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from powerbench.profile import assignment, load_profile, make_cell, make_plan, resolve, shipped_profiles
from powerbench.records import Cell, Limits, Node
from powerbench.reports.command import FLAGS, OPTIONS, command_for, command_of
from tests.rundir import a_cell, a_rail, a_record

USUAL: dict[str, Any] = {"device": "cpu", "copy": "blocking", "sync_every": 1, "min_seconds": 0.0, "idle_seconds": 0.0}


def test_of_a_run_on_several_machines_it_is_the_command_of_one_of_them() -> None:
    node = Node(rank=1, rendezvous="alpha:29500", id="met")
    record = a_record(cell=Cell(**USUAL | {"ranks": 4, "nnodes": 2}), node=node)

    assert command_for(record) == (
        "powerbench run --device cpu --ranks 4 --nnodes 2 --node-rank 1 --rendezvous alpha:29500"
    )


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, ""),
        ({"model": "bert-tiny", "batch_size": 8, "trace": True}, " --model bert-tiny --batch-size 8 --trace"),
        ({"dropout": False, "compile": True}, " --set dropout=false --compile"),
        ({"batches": 8}, ""),
        (
            {"weights": "pretrained", "dataset": "my rows.csv", "pad": "longest", "include_data": True, "batches": 8},
            " --weights pretrained --dataset 'my rows.csv' --pad longest --include-data --set batches=8",
        ),
        ({"optimizer": "sgd", "fused": False, "phases": True}, " --phases --optimizer sgd --set fused=false"),
        ({"sync_every": 0, "copy": "resident"}, " --copy resident --sync-every 0"),
        ({"min_seconds": 600.0, "learning_rate": 3e-05}, " --min-seconds 600 --set learning_rate=3e-05"),
        ({"limits": Limits(swap_out_mb=None)}, " --set limits.swap_out_mb=null"),
        ({"torch_profiler": True}, " --torch-profiler"),
        ({"power_from": "runs/my recording"}, " --power-from 'runs/my recording'"),
    ],
)
def test_only_what_is_not_as_usual_is_typed(changes: dict[str, Any], options: str) -> None:
    record = a_record(cell=Cell(**USUAL | changes))

    assert command_for(record) == f"powerbench run --device cpu{options}"


def test_with_a_meter_other_lengths_are_usual() -> None:
    cell = Cell(**USUAL | {"min_seconds": 10.0, "idle_seconds": 5.0})

    assert command_for(a_record(cell=cell, rails={"package-0": a_rail()})) == "powerbench run --device cpu"
    assert command_for(a_record(cell=cell)) == "powerbench run --device cpu --min-seconds 10 --idle 5"


def test_changes_are_made_to_it() -> None:
    assert command_for(a_record(cell=Cell(**USUAL)), steps=500, trace=True) == (
        "powerbench run --device cpu --steps 500 --trace"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": "sleep", "sleep_ms": 2.5, "threads": 3, "max_seconds": 1000.0},
        {"dropout": False, "attention": "eager", "accumulation": 4, "seed": 7, "require_power": True},
        {"limits": Limits(swap_out_mb=5.5, step_seconds=30.0), "mode": "inference"},
    ],
)
def test_typed_again_it_makes_the_same_cell(changes: dict[str, Any]) -> None:
    cell = Cell(**USUAL | {"power": "none"} | changes)
    options, sets = parsed(command_for(a_record(cell=cell)))

    assert resolve(make_cell(sets=sets, options=options), metered=False) == cell


def parsed(command: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options and the --set of a command line, as `powerbench run` passes them on."""
    names = {option: name for name, option in OPTIONS.items()}
    flags = {option: name for name, option in FLAGS.items()}
    options: dict[str, Any] = {}
    sets: dict[str, Any] = {}
    words = iter(shlex.split(command)[2:])
    for word in words:
        if word in flags:
            options[flags[word]] = True
        elif word == "--set":
            key, value = assignment(next(words))
            sets[key] = value
        else:
            options[names[word]] = next(words)
    return options, sets


def test_every_setting_of_a_cell_can_be_typed() -> None:
    changed = a_cell(batches=3, idle_seconds=1.0, power="none")

    assert " --set batches=3" in command_for(a_record(cell=changed))


@pytest.mark.parametrize("name", shipped_profiles())
def test_each_cell_of_a_profile_is_a_command_that_leaves_open_what_it_does(name: str) -> None:
    for cell in make_plan(profile=load_profile(shipped_profiles()[name])).cells:
        options, sets = parsed(command_of(cell))

        assert make_cell(options=options, sets=sets) == cell
