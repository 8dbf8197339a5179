"""A stream of documents gives the same samples however it was cut, and damage is counted, never raised."""

from __future__ import annotations

import plistlib
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from powerbench.errors import MeterLost
from powerbench.power.powermetrics.documents import LONGEST_DOCUMENT_BYTES, Framing, read_document
from powerbench.power.powermetrics.recording import Arrival, Recording
from tests.power.fake_powermetrics import document

DOCUMENTS = [document(elapsed_ns=100_000_000 + number) for number in range(4)]
STREAM = b"\0".join(DOCUMENTS)


def documents_of(pieces: list[bytes]) -> list[bytes]:
    framing = Framing()
    return [cut for piece in pieces for cut in framing.feed(piece)]


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
@settings(deadline=None)
def test_any_cut_into_reads_yields_the_same_documents(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in pairwise(edges)]

    assert documents_of(pieces) == [text.strip() for text in DOCUMENTS]


def test_a_byte_at_a_time_yields_the_same_documents() -> None:
    assert documents_of([bytes([byte]) for byte in STREAM]) == [text.strip() for text in DOCUMENTS]


def test_the_nul_is_before_a_document_and_none_after_the_last() -> None:
    framing = Framing()

    assert len(framing.feed(STREAM)) == 4
    assert framing.unfinished() == b""


def test_what_has_begun_and_not_ended_is_unfinished() -> None:
    framing = Framing()

    assert framing.feed(b"\0" + DOCUMENTS[0][:400]) == []
    assert framing.unfinished() == DOCUMENTS[0][:400].strip()


@pytest.mark.parametrize("noise", [b"\0", b"\n", b"\0\0\r\n\t ", b"\n\0"])
def test_what_stands_before_a_document_does_not_hide_it(noise: bytes) -> None:
    (cut,) = documents_of([noise + DOCUMENTS[0]])
    sample = read_document(cut)

    assert sample is not None
    assert sample.elapsed_ns == 100_000_000


def test_a_flood_without_end_is_not_kept() -> None:
    framing = Framing()
    flood = b"A" * (LONGEST_DOCUMENT_BYTES // 4)
    for _ in range(4):
        framing.feed(flood)
    with pytest.raises(MeterLost, match="8 MB that are no document"):
        framing.feed(flood)

    assert framing.unfinished() == b""


ARRIVAL = Arrival(10**12, 18 * 10**17)


@given(st.binary(max_size=400))
@example(b'<?xml version="1.0" encoding="UTF-9"?><plist/>')
@example(b"<plist><date>2025-07</date></plist>")
@example(b"<plist><date>soon</date></plist>")
@example(b"<plist></dict></plist>")
@example(b"<plist><dict><key>elapsed_ns</key><integer>nan</integer></dict></plist>")
@example(b"<plist><dict><key>elapsed_ns</key><integer>-5</integer></dict></plist>")
@example(b"<plist><dict><key>elapsed_ns</key><true/></dict></plist>")
@example(b"<plist><array/></plist>")
@example(b'<!DOCTYPE plist [<!ENTITY a "b">]><plist><string>&a;</string></plist>')
def test_arbitrary_bytes_are_counted_and_nothing_worse(noise: bytes) -> None:
    recording = Recording(started_ns=0)

    assert recording.add(noise, ARRIVAL) == []
    assert recording.notes() == ["1 document of powermetrics could not be read: no readable one came after."]


@given(
    st.integers(0, len(DOCUMENTS[0]) - 1),
    st.integers(0, 40),
    st.sampled_from([b"", b"<dict>", b"</array>", b"<key>", b"&", b"\x00", b"<integer>nan", b"<date>9", b"\xff"]),
)
@settings(deadline=None)
def test_a_document_damaged_anywhere_is_read_or_counted(at: int, length: int, put: bytes) -> None:
    recording = Recording(started_ns=0)
    recording.add(DOCUMENTS[0], ARRIVAL)
    recording.add(DOCUMENTS[1][:at] + put + DOCUMENTS[1][at + length :], ARRIVAL)

    assert recording.windows in (1, 2)
    assert set(recording.rails()) == {"cpu", "gpu", "ane"}


def test_a_key_without_a_value_does_not_cost_the_document() -> None:
    damaged = DOCUMENTS[0].replace(b"<key>idle_ratio</key><real>0.5</real>\n", b"<key>idle_ratio</key>\n")
    assert damaged != DOCUMENTS[0]

    sample = read_document(damaged)

    assert sample is not None
    assert sample.energies_mj == {"cpu": 1000, "gpu": 500, "ane": 0}


def test_what_is_left_out_before_parsing_changes_nothing_that_is_read() -> None:
    nested = DOCUMENTS[0].replace(b"<key>dvfm_states</key><array>\n", b"<key>dvfm_states</key><array><array/>\n")
    assert plistlib.loads(nested)

    assert read_document(nested) == read_document(DOCUMENTS[0])
