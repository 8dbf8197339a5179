"""The library in programs that are no plain scripts: a notebook's kernel, ranks of torchrun, the Trainer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import ended, record_of, report, rows_of, start, swept
from tests.e2e.test_library import run_script

# A cell of a notebook each; the second recording is begun in one cell and ended in another.
CELLS = (
    "import time, powerbench\ndef steps(run, count):\n    for _ in range(count):\n        time.sleep(0.002)\n"
    "        run.step()\noptions = dict(device='cpu', power='none', warmup=0)",
    "with powerbench.record({path!r}, **options) as run:\n    steps(run, 10)",
    "run = powerbench.record({path!r}, **options).start()\nsteps(run, 5)",
    "raise ValueError('a cell that fails between them')",
    "import threading\nthread = threading.Thread(target=steps, args=(run, 6))\nthread.start()\nthread.join()",
    "run.stop()\nimport signal\nprint(signal.getsignal(signal.SIGINT) is before)",
)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """A real kernel that ran the cells: where it recorded, and what each cell wrote."""
    manager = pytest.importorskip("jupyter_client.manager")
    pytest.importorskip("ipykernel")
    folder = tmp_path_factory.mktemp("notebook")
    with swept(folder):
        kernel, client = manager.start_new_kernel(cwd=str(folder), startup_timeout=60)
        try:
            client.execute_interactive("import signal; before = signal.getsignal(signal.SIGINT)", timeout=60)
            yield folder / "mine", [told(client, cell.format(path=str(folder / "mine"))) for cell in CELLS]
        finally:
            client.stop_channels()
            kernel.shutdown_kernel(now=True)


class TestANotebook:
    def test_records_twice_in_one_process(self, said: tuple[Path, list[str]]) -> None:
        path, _ = said

        assert [row.stage for row in rows_of(path)] == ["step"] * 10
        assert [row.stage for row in rows_of(path.with_name("mine-2"))] == ["step"] * 11
        assert {record_of(each)["status"] for each in (path, path.with_name("mine-2"))} == {"complete"}
        assert record_of(path)["cell"]["model"] == "notebook"

    def test_says_in_its_cell_where(self, said: tuple[Path, list[str]]) -> None:
        assert said[1][1] == "powerbench: recorded in mine; see it with: powerbench report mine\n"

    def test_notes_steps_of_another_thread(self, said: tuple[Path, list[str]]) -> None:
        (note,) = record_of(said[0].with_name("mine-2"))["notes"]

        assert note.startswith("Steps were marked from several threads")

    def test_keeps_its_own_signal_handlers(self, said: tuple[Path, list[str]]) -> None:
        assert "True\n" in said[1][-1]


def told(client: Any, cell: str) -> str:
    """What a cell writes, on stdout and stderr."""
    parts: list[str] = []

    def take(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream":
            parts.append(message["content"]["text"])

    client.execute_interactive(cell, timeout=60, output_hook=take)
    return "".join(parts)


RANKS = """
import sys, time
import torch.distributed as dist
import powerbench
dist.init_process_group("gloo")
with powerbench.record(sys.argv[1], device="cpu", idle_seconds=0, warmup=0, name="ranks", batch_size=2) as run:
    for _ in range(12):
        dist.barrier()
        time.sleep(0.002)
        run.step()
dist.destroy_process_group()
"""


class TestUnderTorchrun:
    def test_each_rank_has_a_run_and_the_first_the_meters(self, tmp_path: Path) -> None:
        (tmp_path / "train.py").write_text(RANKS)
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        with swept(tmp_path):
            done = ended(start(tmp_path / "train.py", tmp_path / "mine", command=torchrun))

        assert done.status == 0, done.stderr
        first, second = (record_of(tmp_path / f"mine-rank{rank}") for rank in (0, 1))
        assert [record["status"] for record in (first, second)] == ["complete"] * 2
        assert [record["cell"]["power"] for record in (first, second)] == ["auto", "none"]
        assert first["notes"][0].startswith("This is rank 0 of 2, and its steps alone. Joules that are not of one GPU")
        assert second["notes"] == [
            "This is rank 1 of 2, and its steps alone. The meters of the machine were read by the first rank on it, "
            "whose run has the joules."
        ]
        for rank in (0, 1):
            assert len(rows_of(tmp_path / f"mine-rank{rank}")) == 12


TRAINER = """
import sys
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
import powerbench

class Samples(torch.utils.data.Dataset):
    def __len__(self):
        return 32
    def __getitem__(self, index):
        return {"input_ids": torch.arange(8) + index, "labels": torch.tensor(index % 2)}

model = BertForSequenceClassification(BertConfig(
    vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32))
arguments = TrainingArguments(
    output_dir=sys.argv[2], per_device_train_batch_size=2, gradient_accumulation_steps=2, num_train_epochs=2,
    eval_strategy="steps", eval_steps=3, eval_on_start=True, save_steps=6, use_cpu=True, report_to=[],
    disable_tqdm=True, logging_steps=4, dataloader_num_workers=2)
callback = powerbench.PowerbenchCallback(sys.argv[1], power="none", warmup=2, name="tiny")
trainer = Trainer(model=model, args=arguments, train_dataset=Samples(), eval_dataset=Samples(), callbacks=[callback])
trainer.train()
trainer.evaluate()
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a real training of 16 optimizer steps."""
    pytest.importorskip("accelerate")
    folder = tmp_path_factory.mktemp("trainer")
    with swept(folder):
        done = ended(run_script(folder, TRAINER, folder / "mine", folder / "out"))
    assert done.status == 0, done.stderr
    return folder / "mine"


class TestTheTrainer:
    def test_records_optimizer_steps_and_neither_evaluation_nor_saving(self, trained: Path) -> None:
        stages = [row.stage for row in rows_of(trained)]

        # Evaluation before the first step, and after each third; a checkpoint after each sixth and the last.
        paused_before = [number - stages[:number].count("pause") for number, it in enumerate(stages) if it == "pause"]
        assert paused_before == [0, 3, 6, 9, 12, 15, 16]
        assert [stage for stage in stages if stage != "pause"] == ["warmup"] * 2 + ["step"] * 14

    def test_knows_the_step_by_the_trainers_arguments(self, trained: Path) -> None:
        summary, record = report(trained), record_of(trained)

        assert record["status"] == "complete"
        cell = record["cell"]
        assert (cell["mode"], cell["batch_size"], cell["accumulation"], cell["dtype"]) == ("training", 2, 2, "float32")
        assert record["workload"]["samples_per_step"] == 4
        assert record["workload"]["parameters"] == 11_810
        assert (cell["model"], cell["device"]) == ("tiny", "cpu")
        assert summary["samples_per_s"] == pytest.approx(4 * 1000 / summary["latency_ms"]["mean"])
