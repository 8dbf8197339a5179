"""A checked trace as a report for a bug tracker: the verdict, what it was measured on, and how to measure it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from powerbench.analysis.checked import Checked
from powerbench.records import RunRecord
from powerbench.reports.chart import Size, chart
from powerbench.reports.command import command_for
from powerbench.reports.terminal import devices_in_words, headline, machine_line
from powerbench.reports.verdict import arguments, figures, is_slower, verdict
from powerbench.units import byte_size, counted

# Trackers show code blocks of about so many columns without a scroll bar.
WIDTH = 88
LONGEST_VALUE = 80
VERSIONS = ("torch", "torch_git", "transformers", "numpy", "python", "powerbench")


def as_trace_markdown(traces: Sequence[Checked], together: Sequence[str] = (), *, picture: Path | None = None) -> str:
    """The report on one trace, or on several one below the other; `picture` is where the plot of them lies."""
    parts = [line for checked in traces for line in _of_trace(checked)]
    if picture is not None:
        parts += [f"![Latency by step]({picture.name})", ""]
    if together:
        parts += ["## Taken together", "", *(line for sentence in together for line in (sentence, ""))]
    return "\n".join(parts).rstrip()


def _of_trace(checked: Checked) -> Iterator[str]:
    record = checked.record
    yield f"## {verdict(checked)}"
    yield ""
    if record is not None:
        yield from _table(environment(record))
        if not record.loop:
            yield "To measure it again:"
            yield ""
            yield from _code([command_for(record)])
    else:
        yield f"Latencies from `{checked.name}`."
        yield ""
    yield "### Latency by step"
    yield ""
    yield from _code(line.removeprefix("  ") for line in chart(checked, Size(WIDTH)))
    yield from (f"- {label}: {text}" for label, text in figures(checked))
    yield ""
    yield from _causes(checked)
    if checked.notes:
        yield from ("### Notes", "", *(f"- {note}" for note in checked.notes), "")


def environment(record: RunRecord) -> Iterator[tuple[str, str]]:
    """What a reader must know to measure the same: workload, device, software, system, settings."""
    facts = record.environment
    yield "Workload", headline(record)
    yield "Device", _of_device(record)
    yield "Software", ", ".join(f"{name.replace('_', ' ')} {facts[name]}" for name in VERSIONS if facts.get(name))
    yield "System", ", ".join(_system(facts))
    yield "Settings", ", ".join(_settings(record))
    if facts.get("variables"):
        yield "Variables", ", ".join(f"`{name}={_short(value)}`" for name, value in facts["variables"].items())
    began = datetime.fromtimestamp(record.clock.start_unix_ns / 1e9, UTC)
    yield "Run", f"{record.id}, {record.status}, begun {began:%Y-%m-%d %H:%M} UTC"


def _short(value: str) -> str:
    """As much of a variable as a table has room for: containers of NVIDIA's have one of two thousand letters."""
    return value if len(value) <= LONGEST_VALUE else f"{value[:LONGEST_VALUE]}..."


def _of_device(record: RunRecord) -> str:
    if record.device is None:
        return machine_line(record)
    return f"{record.device.kind}: {devices_in_words(record)}, timed by {record.device.timer}"


def _system(facts: Mapping[str, Any]) -> Iterator[str]:
    if facts.get("system"):
        yield f"{facts['system']} ({facts['machine']})" if facts.get("machine") else facts["system"]
    if facts.get("processor"):
        yield str(facts["processor"])
    if facts.get("logical_cores"):
        yield counted(facts["logical_cores"], "logical core")
    if facts.get("memory_bytes") is not None:
        yield f"{byte_size(facts['memory_bytes'])} of memory"
    if facts.get("swap_bytes") is not None:
        yield f"{byte_size(facts['swap_bytes'])} of swap"
    if facts.get("on_battery") is not None:
        yield "on battery" if facts["on_battery"] else "on mains"
    if facts.get("power_mode"):
        yield f"power mode {facts['power_mode']}"
    if facts.get("virtual_machine"):
        yield "a virtual machine"


def _settings(record: RunRecord) -> Iterator[str]:
    cell, threads = record.the_cell, record.environment.get("threads")
    yield f"`sync_every` {cell.sync_every}"
    if not record.loop:
        yield f"`copy` {cell.copy}"
        yield f"`attention` {cell.attention}"
        yield f"`dropout` {str(cell.dropout).lower()}"
        yield f"`compile` {str(cell.compile).lower()}"
    if threads is not None:
        yield counted(threads, "thread")


def _table(pairs: Iterator[tuple[str, str]]) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    for label, text in pairs:
        escaped = text.replace("|", "\\|").replace("\n", " ")
        yield f"| {label} | {escaped} |"
    yield ""


def _code(lines: Iterator[str] | Sequence[str]) -> Iterator[str]:
    yield from ("```", *lines, "```", "")


def _causes(checked: Checked) -> Iterator[str]:
    if not checked.slowdown.causes:
        if is_slower(checked.slowdown):
            yield from ("### Likely causes", "", checked.unexplained, "")
        return
    yield from ("### Likely causes", "")
    for number, cause in enumerate(checked.slowdown.causes, start=1):
        yield f"{number}. **{cause.cause}**"
        yield from (f"   - {label}: {text}" for label, text in arguments(cause))
    yield ""
