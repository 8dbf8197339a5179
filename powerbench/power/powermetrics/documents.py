"""What powermetrics writes, from bytes to samples: cuts the stream into documents and reads each."""

from __future__ import annotations

import math
import plistlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple
from xml.parsers.expat import ExpatError

from powerbench.errors import MeterLost
from powerbench.units import NS_PER_S

# Real documents have 29 to 65 kB; 260 kB with every task listed.
LONGEST_DOCUMENT_BYTES = 8_000_000

# A unit that is busy uses energy in every window: zeros mean that its counter stands still. The least that a quarter
# of a core draws is 2 mJ in 100 ms (M1, efficiency cores); the GPU's residency has a window of its own, so 0.1.
BUSY_CORES = 0.25
BUSY_GPU_RATIO = 0.1


class Framing:
    """Cuts a stream into documents, however it was cut into reads.

    Each document ends in `</plist>`; from the second on, a NUL comes before it and none after the last, so a reader
    that waits for NUL is one document late and loses the last.
    """

    END = b"</plist>"

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The documents that these bytes complete. Raises MeterLost where one has no end."""
        self._buffer += data
        documents: list[bytes] = []
        while (at := self._buffer.find(self.END, self._searched)) >= 0:
            cut = at + len(self.END)
            documents.append(bytes(self._buffer[:cut]).strip(b"\0\r\n\t "))
            del self._buffer[:cut]
            self._searched = 0
        if len(self._buffer) > LONGEST_DOCUMENT_BYTES:
            self._buffer.clear()
            self._searched = 0
            raise MeterLost(f"powermetrics wrote {LONGEST_DOCUMENT_BYTES // 1_000_000} MB that are no document")
        self._searched = max(0, len(self._buffer) - len(self.END) + 1)
        return documents

    def unfinished(self) -> bytes:
        """What has been begun and not completed."""
        return bytes(self._buffer).strip(b"\0\r\n\t ")


class Kind(NamedTuple):
    """A rail that powermetrics may give, under `key` of its processor section."""

    key: str
    mj: int
    rail: str
    part: Literal["cpu", "gpu", "ane", "dram", "package"]
    scope: str
    contains: tuple[str, ...] = ()


# Energy is the integer it counts, power is derived from it. macOS 11 and 12 give dram and package, whose boundary is
# wider than the sum of the others; macOS 13 gives neither. Intel gives joules of the package: cores, graphics, agent.
KINDS = (
    Kind("cpu_energy", 1, "cpu", "cpu", "all CPU clusters of the chip"),
    Kind("gpu_energy", 1, "gpu", "gpu", "the chip's GPU"),
    Kind("ane_energy", 1, "ane", "ane", "the chip's neural engine"),
    Kind("dram_energy", 1, "dram", "dram", "the memory"),
    Kind("package_energy", 1, "package", "package", "the whole SoC package", ("cpu", "gpu", "ane", "dram")),
    Kind("package_joules", 1000, "package", "package", "the Intel package: cores, GPU, system agent", ("cpu", "gpu")),
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One document: what a window of powermetrics held.

    `energies_mj` has the rails that were given, whatever they hold, `kinds` what they are, and `busy` whether they
    worked where that is known. `label_unix_ns` is a whole second; Apple does not say of which moment of the window.
    """

    elapsed_ns: int
    is_delta: bool
    label_unix_ns: int | None
    kinds: list[Kind]
    energies_mj: dict[str, float]
    busy: dict[str, bool]
    gauges: dict[str, float | str]
    has_gpu_energy: bool

    def why_useless(self) -> str | None:
        """Why no curve can be drawn from such documents; None where one can."""
        if self.energies_mj:
            return None
        if self.has_gpu_energy:
            return (
                "powermetrics gives no energy but that of its gpu section, which covers a window of its own that "
                "cannot be placed in time (its cpu_power sampler is missing)"
            )
        return (
            "powermetrics gives no energy on this machine: a virtual machine has none to give, nor has an Intel Mac "
            "without an energy model"
        )


# The tables of residency by frequency are four fifths of a document and are not needed: without them it parses in a
# third of the time, and the machine that is measured does the parsing.
TABLES = re.compile(
    rb"<key>(?:dvfm_states|sw_state|sw_requested_state|requested_freq)</key>\s*<array>.*?</array>", re.S
)
# pumas meets a key without a value on some machines ("idle_ratio").
VALUELESS = re.compile(rb"<key>[^<]*</key>\s*(?=<key>|</dict>)")


def read_document(document: bytes) -> Sample | None:
    """What a document says, or None where it cannot be read or covers no time."""
    for text in (VALUELESS.sub(b"", TABLES.sub(b"", document)), document):
        try:
            top = plistlib.loads(text, fmt=plistlib.FMT_XML)
        # What plistlib lets through on damaged XML, by fuzzing: LookupError for a torn encoding or nesting,
        # AttributeError for a bad date, TypeError for half of one; InvalidFileException is a ValueError.
        except (ExpatError, ValueError, TypeError, LookupError, AttributeError):
            continue
        return _sample(_dict(top))
    return None


def _sample(top: dict[str, Any]) -> Sample | None:
    elapsed_ns = top.get("elapsed_ns")
    if not isinstance(elapsed_ns, int) or isinstance(elapsed_ns, bool) or elapsed_ns <= 0:
        return None
    processor, gpu = _dict(top.get("processor")), _dict(top.get("gpu"))
    kinds = [kind for kind in KINDS if kind.key in processor]
    return Sample(
        elapsed_ns=elapsed_ns,
        is_delta=top.get("is_delta") is not False,
        label_unix_ns=_unix_ns(top.get("timestamp")),
        kinds=kinds,
        energies_mj={kind.rail: _energy_mj(processor[kind.key], kind) for kind in kinds},
        busy=_busy(processor, gpu),
        gauges=_gauges(top, gpu),
        has_gpu_energy="gpu_energy" in gpu,
    )


def _energy_mj(value: object, kind: Kind) -> float:
    """Millijoules, kept whole where they are: a window can hold more than 65 J (pumas#21). NaN for no number."""
    return value * kind.mj if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _busy(processor: dict[str, Any], gpu: dict[str, Any]) -> dict[str, bool]:
    """Which rails cannot have used nothing. Cores are asked: the clusters' idle ratio is wrong on M2 Max and M3 Max."""
    cores = [core for cluster in _dicts(processor.get("clusters")) for core in _dicts(cluster.get("cpus"))]
    idle_gpu = _number(gpu.get("idle_ratio"))
    cpu = sum(map(_busy_ratio, cores)) >= BUSY_CORES
    return {"cpu": cpu, "package": cpu, "gpu": idle_gpu is not None and 1 - idle_gpu >= BUSY_GPU_RATIO}


def _busy_ratio(core: dict[str, Any]) -> float:
    idle = _number(core.get("idle_ratio"))
    down = _number(core.get("down_ratio"))  # M3 Max and later: powered off, which is not idle
    return 0.0 if idle is None else max(0.0, 1 - idle - (down or 0.0))


def _gauges(top: dict[str, Any], gpu: dict[str, Any]) -> dict[str, float | str]:
    gauges: dict[str, float | str] = {}
    if isinstance(pressure := top.get("thermal_pressure"), str):
        gauges["thermal_pressure"] = pressure
    # gpu.freq_hz holds MHz whatever its name says: 338.0, 1360.85; the clusters' freq_hz does hold Hz.
    if (clock_mhz := _number(gpu.get("freq_hz"))) is not None:
        gauges["gpu.clock_mhz"] = clock_mhz
    # not idle_ns over elapsed_ns: the gpu section's window is its own and can exceed the document's
    if (idle_ratio := _number(gpu.get("idle_ratio"))) is not None:
        gauges["gpu.busy_ratio"] = 1 - idle_ratio
    return gauges


def _unix_ns(value: object) -> int | None:
    return round(value.replace(tzinfo=UTC).timestamp()) * NS_PER_S if isinstance(value, datetime) else None


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _number(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not is_finite(value):
        return None
    return value


def is_finite(value: float) -> bool:
    """Whether it is a number that a float can hold: an integer in a document may have any length."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
