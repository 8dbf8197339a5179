"""What a model is given: random batches or those of a text, and the account of them that goes into the record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from powerbench.errors import PowerbenchError
from powerbench.records import Cell
from powerbench.units import counted
from powerbench.workloads.batches import in_turn, prepared, random_pool
from powerbench.workloads.operations import flop_per_sample
from powerbench.workloads.share import WHOLE, Share
from powerbench.workloads.text import Text
from powerbench.workloads.tokens import TextBatches, load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedConfig

    from powerbench.devices import Device
    from powerbench.workloads.batches import Batch, Batches
    from powerbench.workloads.laps import Laps


@dataclass(frozen=True)
class Inputs:
    """A rank's batches in the processor's memory; `tokens` are those of each without padding, of all ranks together.

    `read` makes the batch of a step anew from the text; None where there is none.
    """

    pool: list[Batch]
    tokens: list[int]
    notes: list[str]
    read: Callable[[int], Batch] | None = None


def rows_needed(cell: Cell, share: Share = WHOLE) -> int:
    """How many rows of a text are used: for `batches` batches, or for so many that no step repeats another's."""
    of_steps = (cell.warmup + cell.steps) * cell.accumulation
    return cell.batch_size * share.ranks * (of_steps if cell.batches is None else cell.batches)


def random_inputs(cell: Cell, config: PreTrainedConfig, share: Share = WHOLE) -> Inputs:
    """Random tokens, none of them padding."""
    pool = random_pool(cell, vocabulary=config.vocab_size, share=share)
    return Inputs(pool, [cell.batch_size * share.ranks * cell.sequence_length] * len(pool), [])


def text_inputs(cell: Cell, text: Text, config: PreTrainedConfig, share: Share = WHOLE) -> Inputs:
    """All full batches of the text. Raises PowerbenchError where there is none."""
    rows = len(text.texts)
    if rows < cell.batch_size * share.ranks:
        raise PowerbenchError(_why_too_few(cell, rows, share))
    batches = TextBatches(cell, text, load_tokenizer(cell, config), share)
    pool = batches.pool()
    used = len(pool) * cell.batch_size * share.ranks
    notes = list(text.notes)
    if batches.cut:
        notes.append(f"{batches.cut / used:.0%} of the texts were cut off at {cell.sequence_length} tokens.")
    if cell.batches is not None and len(pool) < cell.batches:
        notes.append(f"{cell.dataset} has text for {len(pool)} full batches, not for {cell.batches}.")
    return Inputs(pool, batches.tokens, notes, batches.read)


def _why_too_few(cell: Cell, rows: int, share: Share) -> str:
    has = f"{cell.dataset} has {counted(rows, 'row')} with a text and a label"
    if rows < share.ranks:
        return f"{has}, not one for each of {share.ranks} ranks: name data with more."
    each = f" on each of {share.ranks} ranks" if share.ranks > 1 else ""
    return (
        f"{has}, fewer than a batch of {cell.batch_size}{each}: choose at most {rows // share.ranks} with --batch-size."
    )


def fetched(cell: Cell, inputs: Inputs, device: Device, laps: Laps | None) -> Batches:
    """The batch of a step, where its copy begins: made before, or read and made in the step, which is then stamped."""
    read = inputs.read
    if not cell.include_data or read is None or laps is None:
        return in_turn(inputs.pool, cell, device)
    stamps, phased = laps, cell.phases

    def read_now(index: int) -> Batch:
        if not phased:  # then the reading is all that is stamped, a row for each
            stamps.begin(index)
        batch = prepared(read(index), cell, device)
        stamps.lap()
        return batch

    return read_now


def account_of(cell: Cell, config: PreTrainedConfig, inputs: Inputs, share: Share = WHOLE) -> dict[str, Any]:
    """What a run records of its inputs, of all ranks together: the fields of its WorkloadRecord.

    A step's figures are means over the pool. Where lengths differ they are recorded batch by batch.
    """
    lengths = [int(batch["input_ids"].shape[1]) for batch in inputs.pool]
    flop = [_flop(cell, config, length, share) for length in lengths]
    a_round = [known for known in flop if known is not None]
    account: dict[str, Any] = {
        "batches": len(inputs.pool),
        "tokens_per_step": cell.accumulation * sum(inputs.tokens) / len(inputs.tokens),
        "flop_per_step": cell.accumulation * sum(a_round) / len(a_round) if a_round else None,
        "notes": inputs.notes,
    }
    if cell.pad == "longest":
        account |= {"batch_lengths": lengths, "batch_tokens": inputs.tokens, "batch_flop": a_round or None}
    return account


def _flop(cell: Cell, config: PreTrainedConfig, tokens: int, share: Share) -> float | None:
    of_sample = flop_per_sample(config, mode=cell.mode, tokens=tokens)
    return None if of_sample is None else of_sample * cell.batch_size * share.ranks
