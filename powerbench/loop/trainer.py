"""A callback for the Trainer of transformers: records its optimizer steps, and leaves out what lies between them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Whoever asks for the callback has a Trainer, and with it all of transformers; nothing else imports this module.
from transformers import TrainerCallback  # noqa: TID253 - the class to derive from

from powerbench.endings import Ended
from powerbench.loop import record

if TYPE_CHECKING:
    from powerbench.loop import Recording


class PowerbenchCallback(TrainerCallback):  # type: ignore[misc]  # transformers is not followed by mypy
    """Record a training as a run: `Trainer(..., callbacks=[powerbench.PowerbenchCallback("runs/mine")])`.

    A step is an optimizer step, with the fetching of its batches. Evaluation and saving are pauses. Batch size,
    accumulation, precision, device, parameters and the model's name come from the Trainer, unless `options`, which are
    those of `powerbench.record`, say otherwise.

    The recording ends with the training. What leaves `trainer.train()` by an error ends it when the program ends, or
    when the next training begins.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, **options: Any) -> None:
        """Record to `path` with the `options` of `powerbench.record`, all of which may be left out."""
        self._path = path
        self._options = options
        self._awaited: set[str] = set()
        self.recording: Recording | None = None
        """The recording of the training at work, or of the last one; None before the first."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the meters and begin. Raises PowerbenchError where that fails."""
        if self.recording is not None:
            self.recording.end(Ended("interrupted", "the next training began before this one had ended"))
        self.recording = record(self._path, **{**told_by(args, kwargs.get("model")), **self._options}).start()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Where something was awaited that did not come: go on."""
        if self._awaited and self.recording is not None:
            self._awaited.clear()
            self.recording.resume()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the step, and pause where the Trainer is going to evaluate or save."""
        if self.recording is not None:
            self.recording.step()
            self._pause_for(control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The same between two epochs."""
        self._pause_for(control)

    def _pause_for(self, control: Any) -> None:
        asked = {"evaluate": control.should_evaluate, "save": control.should_save}
        self._awaited = {what for what, is_asked in asked.items() if is_asked}
        if self._awaited and self.recording is not None:
            self.recording.pause()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """An evaluation is over, whoever asked for it."""
        self._came("evaluate")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A checkpoint has been written."""
        self._came("save")

    def _came(self, what: str) -> None:
        self._awaited.discard(what)
        if not self._awaited and self.recording is not None:
            self.recording.resume()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the record."""
        if self.recording is not None:
            self.recording.stop()


def told_by(args: Any, model: Any) -> dict[str, Any]:
    """What the Trainer's arguments and its model tell of a step, as options of `powerbench.record`."""
    config = getattr(model, "config", None)
    name = getattr(config, "name_or_path", "") or type(model).__name__
    mixed = "bfloat16" if args.bf16 else "float16" if args.fp16 else None
    several = f"The model ran on {args.n_gpu} GPUs at once (DataParallel); the joules are those of the first alone."
    return {
        "notes": [several] if args.n_gpu > 1 else [],
        "device": str(args.device),
        "name": name,
        "mode": "training",
        "batch_size": args.train_batch_size,
        "accumulation": args.gradient_accumulation_steps,
        "dtype": mixed or _dtype_of(model),
        "parameters": sum(each.numel() for each in model.parameters()) if model is not None else None,
    }


def _dtype_of(model: Any) -> str | None:
    """The precision of the model's parameters, where it is one of those that records know."""
    name = str(getattr(model, "dtype", "")).removeprefix("torch.")
    return name if name in ("float32", "bfloat16", "float16") else None
