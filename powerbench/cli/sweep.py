"""`powerbench run` where there are several cells: what is asked for, the sweep, and what it came to."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from powerbench.cli.compare import compare_interpreters
from powerbench.cli.measuring import measure, require_energy, resolved
from powerbench.cli.names import Names
from powerbench.cli.output import print_result, say, text_width
from powerbench.errors import PowerbenchError, UsageError
from powerbench.units import counted

if TYPE_CHECKING:
    from powerbench.interpreter import Interpreter
    from powerbench.profile import Plan
    from powerbench.records import Status
    from powerbench.rundir.sweeps import SweepDir, SweepRecord
    from powerbench.sweep import Standing

# Fewer than three processes a side say little of how much two of them differ.
COMPARED_REPEATS = 3


def asked_for(profile: str | None, sets: Sequence[str], given: Mapping[str, Any]) -> Plan:
    """What the command line asks for, checked; `given` holds its options by name. Raises PowerbenchError.

    A line of `exclude` that leaves nothing out, which a slip in a value makes of it, is named on stderr.
    """
    from powerbench.profile import assignment, find_profile, load_profile, make_plan
    from powerbench.settings import TYPES

    assigned = dict(map(assignment, sets))
    if len(assigned) < len(sets):
        raise UsageError("A key is given twice with --set; leave one out.")
    options = {key: value for key, value in given.items() if key in TYPES and value not in (None, [], ())}
    loaded = load_profile(find_profile(profile)) if profile is not None else None
    plan = make_plan(profile=loaded, sets=assigned, options=options)
    for entry in plan.idle_excludes:
        line = ", ".join(f"{key}: {value}" for key, value in entry.items())
        say(f"powerbench: The profile excludes {{{line}}} in vain: no cell has all of that.")
    return plan


def statuses(retry: str | None) -> list[Status]:
    """The statuses that --retry names. Raises UsageError."""
    from powerbench.rundir.sweeps import ANSWERS

    named = [] if retry is None else [name.strip() for name in retry.split(",")]
    known: dict[str, Status] = {status: status for status in ANSWERS}
    for name in named:
        if name not in known:
            raise UsageError(f"--retry knows no status {name!r}; choose from {', '.join(known)}.")
    return [known[name] for name in named]


def repeated(plan: Plan, *, is_asked: bool) -> Plan:
    """`plan` with so many repeats that two interpreters can be compared, unless their number was asked for."""
    return plan if is_asked or plan.repeats > 1 else replace(plan, repeats=COMPARED_REPEATS)


def sweep(
    plan: Plan, output: Path, *, other: Interpreter | None, resume: bool, retry: Sequence[Status], json: bool
) -> int:
    """Measure every cell that has no answer yet, in the `other` interpreter too; the exit status.

    Raises PowerbenchError.
    """
    from powerbench.cooldown import CoolDown, look_at_machine
    from powerbench.forecast import Forecast, runs_in
    from powerbench.metering import choose_for
    from powerbench.sweep import Sweep

    with begun(plan, output, other=other, resume=resume) as (sweepdir, record):
        names = Names(record.measurements)
        work = Sweep(
            sweepdir,
            record,
            resolve=resolved,
            measure=partial(measure, other=other),
            forecast=Forecast(runs_in(output)),
            cooldown=CoolDown(lambda: look_at_machine(choose_for(plan.cells[0])[0])),
            retry=retry,
            say=say,
            on_cell=lambda standing: announce(standing, names),
        )
        tell_beginning(sweepdir, record, work.todo, names)
        tell_interpreters(other)
        try:
            work.run()
        except PowerbenchError as error:
            raise PowerbenchError(
                f"{error} The sweep stops here; mend that, and the same command with --resume goes on."
            ) from error
        compared = show(sweepdir, work.record, json=json)
        return exit_status(sweepdir, work.record, stopped=work.stopped) or compared


@contextmanager
def begun(
    plan: Plan, output: Path, *, other: Interpreter | None, resume: bool
) -> Iterator[tuple[SweepDir, SweepRecord]]:
    """A new sweep, or the one to go on with; nobody else measures it meanwhile. Raises PowerbenchError."""
    import msgspec

    from powerbench.rundir.sweeps import SweepRecord, create_sweep, newest_like, read_sweep
    from powerbench.sweep import measurements_of, refuse_nonsense

    measurements = measurements_of(plan.cells, repeats=plan.repeats, against=path_of(other))
    if not resume:
        refuse_nonsense(plan.cells, resolved)
        sweepdir = create_sweep(output, plan.name)
    elif (found := newest_like(output, plan.name, measurements)) is not None:
        sweepdir = found
    else:
        raise PowerbenchError(nothing_to_resume(output))
    with sweepdir.held():
        if resume:
            record = read_sweep(sweepdir.path)
        else:
            record = SweepRecord(
                id=sweepdir.path.name, profile=plan.name, host=platform.node(), measurements=measurements
            )
        record = msgspec.structs.replace(record, cooldown_seconds=plan.cooldown_seconds)
        sweepdir.begin(record)
        yield sweepdir, record


def nothing_to_resume(output: Path) -> str:
    """Why --resume finds nothing, with the newest sweep that there is: an option may have been left out."""
    from powerbench.rundir.sweeps import find_sweeps

    others = find_sweeps(output)
    newest = f" (the newest sweep there is {others[-1].name})" if others else ""
    return (
        f"In {output} there is no sweep of these very cells on this machine to go on with{newest}: type the command as "
        "it was, name its folder with --output, or leave --resume out to begin anew."
    )


def tell_beginning(sweepdir: SweepDir, record: SweepRecord, todo: Sequence[int], names: Names) -> None:
    """How much there is to do, and of what was interrupted or is tried again, why."""
    total = len(record.measurements)
    if not any(one.attempts for one in record.measurements):
        say(f"Sweep of {counted(total, 'measurement')} in {sweepdir.path}")
        return
    say(f"Going on with {sweepdir.path}: {len(todo)} of {counted(total, 'measurement')} to go")
    for at in todo:
        one = record.measurements[at]
        if one.status is not None:
            reason = (one.reason or "no reason was recorded").rstrip(".")
            say(f"Again {at + 1}: {names.of(one.cell, one.repeat, one.interpreter)} ({one.status}: {reason})")


def tell_interpreters(other: Interpreter | None) -> None:
    """Which Python is A and which B, as each measurement is called from here on."""
    if other is not None:
        say(f"A is {sys.executable}")
        say(f"B is {other.path}")


def announce(standing: Standing, names: Names) -> None:
    """One line before each cell."""
    from powerbench.cli.progress import left_in_words

    one = standing.measurement
    where = f"[{standing.number} of {standing.total}{left_in_words(standing.left_s)}]"
    say(f"{where} {names.of(standing.cell, one.repeat, one.interpreter)}")


def show(sweepdir: SweepDir, record: SweepRecord, *, json: bool) -> int:
    """The results on stdout, as `report` has them: figures, what has none, and why. On stderr what to type next.

    Of two interpreters the comparison, once all is measured; returns the exit status that it ends in, else 0.
    """
    from powerbench.reports.json import as_json_list
    from powerbench.reports.terminal import as_terminal
    from powerbench.rundir.many import Runs, find_readable
    from powerbench.sweep import pending

    try:
        if record.against is not None and not pending(record.measurements):
            status = compare_interpreters(sweepdir.path, fail_above=None, json=json)
            say()
            return status
        runs = Runs(find_readable([sweepdir.path]).items)
        print_result(as_json_list(runs) if json else as_terminal(runs, width=text_width()))
        say()
        return 0
    finally:
        tell_end(sweepdir, record)


def path_of(other: Interpreter | None) -> str | None:
    """The path of an interpreter that there may be."""
    return None if other is None else other.path


def tell_end(sweepdir: SweepDir, record: SweepRecord) -> None:
    """Where it lies, and what to type next."""
    from powerbench.sweep import pending

    to_go = len(pending(record.measurements))
    if to_go:
        say(f"{counted(to_go, 'measurement')} to go: the same command with --resume goes on.")
    say(f"Recorded in {sweepdir.path}")
    say(f"See it again with: powerbench {'report' if record.against is None else 'compare'} {sweepdir.path}")


def exit_status(sweepdir: SweepDir, record: SweepRecord, *, stopped: bool) -> int:
    """130 where it was stopped, 1 where a cell failed or required energy is missing; else 0.

    Out of memory and out of time are answers.
    """
    from powerbench.rundir.load import load_run

    if stopped:
        return 130
    complete = [one for one in record.measurements if one.run and one.status == "complete"]
    required = [sweepdir.path / str(one.run) for one in complete if one.cell.require_power]
    without_energy = sum(require_energy(load_run(path)) for path in required)
    return int(without_energy > 0 or any(one.status == "failed" for one in record.measurements))


def list_cells(
    plan: Plan, output: Path, *, other: Interpreter | None, resume: bool, retry: Sequence[Status], json: bool
) -> None:
    """What a run would measure, in order, and how long that takes as far as it is known."""
    import msgspec

    from powerbench.cli.dry_run import as_table, planned
    from powerbench.rundir.sweeps import newest_like, read_sweep
    from powerbench.sweep import measurements_of

    measurements = measurements_of(plan.cells, repeats=plan.repeats, against=path_of(other))
    found = newest_like(output, plan.name, measurements) if resume else None
    if found is not None:
        measurements = read_sweep(found.path).measurements
    rows = planned(measurements, output, retry=retry)
    if json:
        print_result(msgspec.json.format(msgspec.json.encode(rows)).decode())
    else:
        tell_interpreters(other)
        print_result(as_table(rows, Names(measurements), cooldown_seconds=plan.cooldown_seconds))
