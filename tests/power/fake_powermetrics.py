"""A stand-in for powermetrics: writes the documents of a machine whose watts are known exactly, and fails as asked.

As a program it reads its settings, an object of JSON, from FAKE_POWERMETRICS; `install` writes a launcher that holds
them. Needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import stat
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

NS_PER_MS = 1_000_000
HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">\n'
    '<plist version="1.0">\n'
)
DEFAULTS: dict[str, Any] = {
    "machine": "m1",  # m1, ultra, m4, macos12, intel, vm, gpu_only
    "watts": {"cpu": 10, "gpu": 5, "ane": 0},
    "busy_ratio": 0.5,
    "lag_ms": 8,  # a window is so much longer than was asked for
    "speed": 1,  # how much faster than its documents say it goes
    "start_s": 0.0,
    "documents": None,  # after so many it exits, by itself, with `status`
    "status": 0,
    "last_words": "",
    "cut_last": False,  # and leaves half a document
    "piece": None,  # bytes to a write
    "batch": 1,  # documents to a write
    "noise": "",  # a line on stderr with each document
    "unknown": [],  # samplers that it refuses
    "not_a_number": {},  # rail: document from which on its energy is that, as "nan", "inf" or "-5"
    "missing": {},  # rail: document from which on it is not given
    "stalled": {},  # rail: [first, one past the last] document without energy, made up for in the next
    "dead_once": {},  # rail: file from whose creation on it is without energy for good
    "damaged": [],  # documents with a torn tag
    "ignores_sigterm": False,
    "summary": True,
    "summary_factor": 1,
    "hang_at": None,  # the document before which it falls silent
    "flood": False,
}


def document(**given: Any) -> bytes:
    """A document: `elapsed_ns`, `unix_s`, `machine`, `energies_mj` (a value may be "nan"), `busy_ratio`, `is_delta`."""
    settings: dict[str, Any] = {
        "machine": "m1",
        "elapsed_ns": 100 * NS_PER_MS,
        "energies_mj": {"cpu": 1000, "gpu": 500, "ane": 0},
        "busy_ratio": 0.5,
        "is_delta": True,
        "unix_s": 1_800_000_000,
        "thermal_pressure": "Nominal",
        **given,
    }
    machine = settings["machine"]
    sections: list[Any] = [] if machine == "gpu_only" else [("processor", processor(settings))]
    sections.append(("thermal_pressure", settings["thermal_pressure"]))
    if machine not in ("intel", "vm"):
        sections.append(("gpu", gpu(settings)))
    top = [
        ("is_delta", settings["is_delta"]),
        ("elapsed_ns", settings["elapsed_ns"]),
        ("hw_model", {"ultra": "Mac14,14", "m4": "Mac16,5", "vm": "VMware7,1"}.get(machine, "MacBookPro17,1")),
        ("kern_bootargs", ""),
        ("timestamp", datetime.fromtimestamp(int(settings["unix_s"]), tz=UTC)),
        *sections,
    ]
    return f"{HEAD}{xml(top)}</plist>\n".encode()


def processor(settings: dict[str, Any]) -> list[Any]:
    """The section of the energies, in the order of its fields."""
    machine, energies = settings["machine"], settings["energies_mj"]
    if machine == "vm":
        return [("llc_flushed_ratio", 0.0), ("packages", [])]
    if machine == "intel":
        joules = energies["package"] / 1000
        return [("package_joules", joules), ("package_watts", joules / settings["elapsed_ns"] * 1e9), ("packages", [])]
    fields: list[Any] = [("clusters", [cluster(name, settings) for name in CLUSTERS.get(machine, CLUSTERS["m1"])])]
    for rail, energy in energies.items():
        fields.append((f"{rail}_energy", energy))
        if not isinstance(energy, str):
            fields.append((f"{rail}_power", energy / settings["elapsed_ns"] * 1e9))
    if machine != "macos12" and not any(isinstance(energy, str) for energy in energies.values()):
        fields.append(("combined_power", sum(energies.values()) / settings["elapsed_ns"] * 1e9))
    return fields


CLUSTERS = {
    "m1": ("E-Cluster", "P-Cluster"),
    "m4": ("E-Cluster", "P0-Cluster", "P1-Cluster"),
    "ultra": ("E0-Cluster", "P0-Cluster", "P1-Cluster", "E1-Cluster", "P2-Cluster", "P3-Cluster"),
}


def cluster(name: str, settings: dict[str, Any]) -> list[Any]:
    idle = 1 - settings["busy_ratio"]
    down = [("down_ns", 0), ("down_ratio", idle / 2)] if settings["machine"] == "m4" else []
    idle = idle / 2 if down else idle
    cpu = [("cpu", 0), ("freq_hz", 1.04e9), ("idle_ns", 0), ("idle_ratio", idle), *down, ("dvfm_states", states(600))]
    # an idle ratio of 0 while the cores idle, as M2 Max and M3 Max have it
    return [("name", name), ("freq_hz", 1.02e9), ("idle_ratio", 0.0), ("dvfm_states", states(600)), ("cpus", [cpu] * 2)]


def gpu(settings: dict[str, Any]) -> list[Any]:
    idle = 1 - settings["busy_ratio"]
    energy = settings["energies_mj"].get("gpu", 0)
    return [
        ("freq_hz", 714.836),
        ("idle_ns", round(idle * settings["elapsed_ns"] * 1.2)),
        ("idle_ratio", idle),
        ("dvfm_states", states(396)),
        ("sw_requested_state", [[("sw_req_state", "P1"), ("used_ns", 0), ("used_ratio", 0.0)]]),
        # a little more than the processor's, from a window of its own
        ("gpu_energy", energy if isinstance(energy, str) else energy + 3),
    ]


def states(freq: int) -> list[Any]:
    return [[("freq", freq + 100 * step), ("used_ns", 0), ("used_ratio", 0.0)] for step in range(6)]


def xml(value: Any) -> str:
    """`value` as powermetrics writes it: a list of pairs is a dict, any other list an array."""
    if isinstance(value, bool):
        return f"<{str(value).lower()}/>\n"
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return "<dict>\n" + "".join(f"<key>{key}</key>{xml(item)}" for key, item in value) + "</dict>\n"
    if isinstance(value, list):
        return "<array>\n" + "".join(map(xml, value)) + "</array>\n"
    if isinstance(value, int):
        return f"<integer>{value}</integer>\n"
    if isinstance(value, float):
        return f"<real>{value!r}</real>\n"
    if isinstance(value, datetime):
        return f"<date>{value:%Y-%m-%dT%H:%M:%SZ}</date>\n"
    if value in ("nan", "inf", "-inf") or (isinstance(value, str) and value[:1] == "-" and value[1:].isdigit()):
        return f"<real>{value}</real>\n"
    return f"<string>{value}</string>\n"


def install(folder: Path, **settings: object) -> Path:
    """A runnable powermetrics in `folder` that behaves as `settings` say."""
    unknown = set(settings) - set(DEFAULTS)
    assert not unknown, unknown
    launcher = folder / "powermetrics"
    # -I and -S: it starts in half the time
    launcher.write_text(
        f"#!{sys.executable} -IS\n"
        "import os, runpy\n"
        f"os.environ.setdefault('FAKE_POWERMETRICS', {json.dumps(settings)!r})\n"
        f"runpy.run_path({__file__!r}, run_name='__main__')\n"
    )
    launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)
    return launcher


class Machine:
    """Makes up the documents, one after another, and keeps their sum."""

    def __init__(self, settings: dict[str, Any], period_ms: int) -> None:
        self.settings = settings
        self.elapsed_ns: int = (period_ms + settings["lag_ms"]) * NS_PER_MS
        self.totals: dict[str, int] = dict.fromkeys(settings["watts"], 0)
        self.owed: dict[str, int] = dict.fromkeys(settings["watts"], 0)
        self.made = 0

    def next(self) -> bytes:
        """The document of the window that has just ended."""
        energies = {rail: self.energy_mj(rail, watts) for rail, watts in self.settings["watts"].items()}
        energies |= {r: f"{v}" for r, (v, since) in self.settings["not_a_number"].items() if self.made >= since}
        energies = {r: e for r, e in energies.items() if self.made < self.settings["missing"].get(r, self.made + 1)}
        text = self.document(energies, elapsed_ns=self.elapsed_ns, is_delta=True)
        text = text.replace(b"</integer>", b"<integer>", 1) if self.made in self.settings["damaged"] else text
        # from the second on, a NUL comes before a document; none after the last
        text = b"\0" + text if self.made else text
        self.made += 1
        return text

    def energy_mj(self, rail: str, watts: int) -> int:
        """Millijoules of the window: none in a stall, all that was held back after it."""
        energy: int = watts * self.elapsed_ns // NS_PER_MS
        first, past = self.settings["stalled"].get(rail, (0, 0))
        dead_once = self.settings["dead_once"].get(rail)
        if first <= self.made < past or (dead_once is not None and Path(dead_once).exists()):
            self.owed[rail] += energy
            return 0
        energy, self.owed[rail] = energy + self.owed[rail], 0
        self.totals[rail] += energy
        return energy

    def summary(self) -> bytes:
        """The usage summary of everything."""
        factor = self.settings["summary_factor"]
        energies = {rail: total * factor for rail, total in self.totals.items()}
        return b"\0" + self.document(energies, elapsed_ns=self.made * self.elapsed_ns, is_delta=False)

    def document(self, energies: dict[str, Any], *, elapsed_ns: int, is_delta: bool) -> bytes:
        settings = self.settings
        return document(
            machine=settings["machine"],
            elapsed_ns=elapsed_ns,
            energies_mj=energies,
            busy_ratio=settings["busy_ratio"],
            is_delta=is_delta,
            unix_s=time.time(),
        )


def write(data: bytes, piece: int | None) -> None:
    """Write it all, `piece` bytes at a time."""
    size = piece or max(1, len(data))
    for start in range(0, len(data), size):
        os.write(1, data[start : start + size])


def main(arguments: list[str]) -> int:
    settings = {**DEFAULTS, **json.loads(os.environ.get("FAKE_POWERMETRICS", "{}"))}
    signal.alarm(60)  # whatever happens, no test leaves it behind
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    samplers = arguments[arguments.index("--samplers") + 1].split(",")
    for name in settings["unknown"]:
        if name in samplers:
            print(f"powermetrics: unrecognized sampler: {name}", file=sys.stderr)
            return 1
    if "cpu_power" not in samplers:
        settings["machine"] = "gpu_only"
    told_to_end = end_signal(ignored=settings["ignores_sigterm"])
    machine = Machine(settings, int(arguments[arguments.index("-i") + 1]))
    if not run(machine, settings, told_to_end):
        print(settings["last_words"], file=sys.stderr)
        return int(settings["status"])
    if settings["summary"] and "--show-usage-summary" in arguments and machine.made:
        write(machine.summary(), settings["piece"])
    return 0


def end_signal(*, ignored: bool) -> int:
    """A file descriptor that can be read once SIGTERM has come; no document is torn by it."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    if ignored:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.set_wakeup_fd(writable)
        signal.signal(signal.SIGTERM, lambda number, frame: None)
    return readable


def run(machine: Machine, settings: dict[str, Any], told_to_end: int) -> bool:
    """Write documents until told to end, or, then False, until it ends of itself."""
    due_s = time.monotonic() + settings["start_s"]
    while settings["flood"] and not select.select([told_to_end], [], [], 0)[0]:
        write(b"A" * 65536, None)
    batch = b""
    while settings["documents"] is None or machine.made < settings["documents"]:
        due_s += machine.elapsed_ns / 1e9 / settings["speed"]
        left_s = None if machine.made == settings["hang_at"] else max(0.0, due_s - time.monotonic())
        if select.select([told_to_end], [], [], left_s)[0]:
            write(batch, settings["piece"])
            return True
        batch += machine.next()
        if settings["noise"]:
            with contextlib.suppress(BrokenPipeError):
                print(settings["noise"], file=sys.stderr, flush=True)
        if machine.made % settings["batch"] == 0:
            write(batch, settings["piece"])
            batch = b""
    if settings["cut_last"]:
        batch += machine.next()[:500]
    write(batch, settings["piece"])
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
