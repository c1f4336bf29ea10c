"""A run's folder: its settings, checkpoints, metrics and finished model.

    models/<run>/run.json          settings and inputs of the run, written first
                 checkpoint-N/     a model with the state of the optimizer; the newest few are kept
                 best/             the model of the best evaluation so far
                 metrics.jsonl     one JSON object for each logged training loss and each evaluation
                 samples.jsonl     continuations at each evaluation, with --sample-prompt
                 curves.png        loss, bits per character and learning rate as a picture
                 README.md         the model card
                 tensorboard/      event files, with --report-to tensorboard
                 config.json model.safetensors tokenizer.json ...   the finished model
                 ledger.json       written last

Invariants: a checkpoint under its name is whole: it is written in `.saving/`, fsynced and renamed; when a run resumes,
`metrics.jsonl` and `samples.jsonl` lose the lines after its checkpoint, so every step is logged once.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from corpus.pipeline.errors import DamageError, DiskError, TrainError
from corpus.pipeline.humanize import size_text
from corpus.pipeline.workspace import files
from corpus.pipeline.workspace.files import disk_errors, fsync, json_lines, write_atomic
from corpus.pipeline.workspace.ledger import (
    LEDGER,
    FileDigest,
    Ledger,
    changes,
    delete_ledger,
    output_changes,
    read_ledger,
)
from corpus.train.model.memory import checkpoint_bytes, weight_bytes
from corpus.train.run.plan import VERSION, RunPlan

BEST = "best"
_STARTED = "run.json"
_LENGTH = {"max_steps", "epochs", "eval_steps"}
"""Settings that say how long a run is, or follow from it."""
_SAVING_MODE = 0o700
_LOW_DISK_BYTES = 64 << 20


class RunFolder:
    """The folder of one run; only the first process of a run writes in it."""

    def __init__(self, plan: RunPlan, digest: Callable[[Path], str]) -> None:
        self.plan = plan
        self.digest = digest
        self.path = plan.folder
        self.metrics = plan.folder / "metrics.jsonl"
        self.samples = plan.folder / "samples.jsonl"
        self.saving = plan.folder / ".saving"

    def finished(self) -> tuple[Ledger | None, tuple[str, ...]]:
        """The ledger of a finished run, and the reasons why it is stale.

        Raises:
            TrainError: the folder holds another run, or files that are not a run.

        """
        ledger = read_ledger(self.path)
        started = ledger or self._read_started()
        others = [] if started or not self.path.is_dir() else list(self.path.iterdir())
        if any(not path.name.startswith(".") for path in others):
            raise TrainError(
                f"{self.path} holds files that are not a run", hint="Give the run another name with --run."
            )
        reasons = changes(started, self.path, VERSION, self.plan.settings, self.plan.inputs, self.digest)
        if started is not None and started.fingerprint != self.plan.identity:
            hint = f"Give this run another name with --run, or delete {self.path}."
            if ledger is not None and self._is_only_longer(ledger):
                hint = (
                    "A finished run is not made longer: its learning rate has come down. To train the model further, "
                    f"give --init {self.plan.name} and another name with --run."
                )
            raise TrainError(f"{self.plan.name} is the name of another run: {'; '.join(reasons)}", hint=hint)
        return ledger, tuple(reasons)

    def check_history(self, ledger: Ledger) -> None:
        """Refuse to resume a finished run without its best model, metrics or samples, which no checkpoint holds.

        Raises:
            DamageError: one of them is not what the ledger says.

        """
        for name, what in output_changes(ledger, self.path, self.digest):
            if name.startswith(f"{BEST}/") or name in {self.metrics.name, self.samples.name}:
                raise DamageError(
                    f"{self.path / name} {what}, and no checkpoint holds it",
                    hint="Give --no-resume to train this run from step 0 again, or another name with --run.",
                )

    def checkpoints(self) -> list[tuple[int, Path]]:
        """Steps and folders of the checkpoints, oldest first."""
        found = []
        for path in self.path.glob("checkpoint-*"):
            match = re.fullmatch(r"checkpoint-(\d+)", path.name)
            if match and (path / "trainer_state.json").is_file():
                found.append((int(match[1]), path))
        return sorted(found)

    def begin(self, step: int) -> None:
        """Prepare the folder to resume from a step; at step 0 an earlier attempt is deleted."""
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path / _STARTED, self.plan.ledger().to_json())
            delete_ledger(self.path)
            files.remove_leftovers(self.path)
            if step == 0:
                self._drop([*(path for _, path in self.checkpoints()), self.path / BEST])
                shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
            shutil.rmtree(self.saving, ignore_errors=True)
            self.saving.mkdir(mode=_SAVING_MODE, exist_ok=True)
            for path in (self.metrics, self.samples):
                kept = [line for line in json_lines(path) if line["step"] <= step]
                if kept or path == self.metrics:
                    write_atomic(path, b"".join(map(_line, kept)))
                else:
                    path.unlink(missing_ok=True)

    def check_room(self, step: int, *, parameters: int, one_moment: int, limit: int) -> None:
        """Refuse a run that resumes from a step and will not fit the disk; `limit` is the number of checkpoints kept.

        Raises:
            DiskError: it says what is free and what is needed.

        """
        checkpoint, model = checkpoint_bytes(parameters, one_moment=one_moment), weight_bytes(parameters)
        there = len(self.checkpoints())
        due = -(-(self.plan.steps.count - step) // self.plan.save_steps)
        best = model if self.plan.objective.validation and not (self.path / BEST).is_dir() else 0
        most = (min(limit + 1, there + due) - there) * checkpoint + best  # before the oldest one is deleted
        end = (min(limit, there + due) - there) * checkpoint + best + model
        need, free = max(most, end), shutil.disk_usage(self.path).free
        if need > free:
            raise DiskError(
                f"{self.path}: {size_text(free)} are free, and the run needs {size_text(need)}: up to {limit + 1} "
                f"checkpoints of {size_text(checkpoint)}, the best model and the last one",
                hint="Free some room, or put the workspace on another disk with --workspace, and run again.",
            )

    def add(self, path: Path, line: Mapping[str, Any]) -> None:
        """Add a line to `metrics` or `samples`."""
        with disk_errors(path), path.open("ab") as file:
            file.write(_line(line))

    def history(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`; a partial last line of a killed run is skipped."""
        return json_lines(self.metrics)

    def keep_best(self) -> None:
        """Replace `best/` by the model in `.saving/best`."""
        with disk_errors(self.path):
            self._finish_saved(self.saving / BEST)
            self._drop([self.path / BEST])
            (self.saving / BEST).rename(self.path / BEST)
            fsync(self.path)

    def keep_checkpoint(self, step: int, *, mixture: Mapping[str, Any], limit: int) -> None:
        """Move the checkpoint in `.saving/` to its name and delete the oldest ones over the limit."""
        name = f"checkpoint-{step}"
        with disk_errors(self.path):
            for path in (self.metrics, self.samples):
                if path.is_file():
                    fsync(path)
            write_atomic(self.saving / name / "mixture.json", _line(mixture))
            self._finish_saved(self.saving / name)
            (self.saving / name).rename(self.path / name)
            fsync(self.path)
            self._drop(path for _, path in self.checkpoints()[:-limit])

    def keep_model(self) -> None:
        """Move the model in `.saving/model` to its place."""
        source = self.saving / "model"
        with disk_errors(self.path):
            self._finish_saved(source)
            for path in sorted(source.iterdir()):
                path.replace(self.path / path.name)
            fsync(self.path)
            shutil.rmtree(self.saving)

    def finished_files(self) -> list[Path]:
        """The outputs in the ledger: the model, the best one, metrics, samples, picture and card."""
        others = {LEDGER, "timings.json", _STARTED}
        found = [path for path in self.path.iterdir() if path.is_file() and path.name not in others]
        return sorted(found + [path for path in (self.path / BEST).glob("*") if path.is_file()])

    def _drop(self, checkpoints: Iterable[Path]) -> None:
        """Delete those that exist; they are renamed first, so that a half-deleted one has no checkpoint's name."""
        self.saving.mkdir(mode=_SAVING_MODE, exist_ok=True)
        for path in filter(Path.is_dir, checkpoints):
            aside = self.saving / f"{path.name}.old"
            path.rename(aside)
            shutil.rmtree(aside)

    def _finish_saved(self, folder: Path) -> None:
        """Add what belongs beside the weights, delete the pickled arguments with this machine's paths, and fsync."""
        (folder / "training_args.bin").unlink(missing_ok=True)
        self.plan.objective.save(folder)
        for path in folder.iterdir():
            with contextlib.suppress(OSError):  # not every file system has modes
                path.chmod(files.FINISHED_MODE)
        for path in (*folder.iterdir(), folder):
            fsync(path)

    def _is_only_longer(self, ledger: Ledger) -> bool:
        """Whether nothing but the length of the run differs."""
        before, now = ledger.config, self.plan.settings
        differing = {name for name in {*before, *now} if before.get(name) != now.get(name)}
        return differing <= _LENGTH and list(ledger.inputs) == list(self.plan.inputs)

    def _read_started(self) -> Ledger | None:
        try:
            values = json.loads((self.path / _STARTED).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise TrainError(f"{self.path / _STARTED} cannot be read: {error}", hint=f"Delete {self.path}.") from error
        values.pop("schema", None)
        values["inputs"] = [FileDigest(**entry) for entry in values["inputs"]]
        return Ledger(**values)


@contextlib.contextmanager
def saving_errors(folder: Path) -> Iterator[None]:
    """Turn write errors of torch and safetensors, which hide the error's number, into a DiskError."""
    try:
        with disk_errors(folder):
            yield
    except (RuntimeError, SafetensorError) as error:
        text = str(error)
        number = re.search(r"os error (\d+)", text)
        if number is None and "PytorchStreamWriter" not in text and "inline_container" not in text:
            raise
        code = int(number[1]) if number else errno.ENOSPC if shutil.disk_usage(folder).free < _LOW_DISK_BYTES else 0
        if code:
            with disk_errors(folder):
                raise OSError(code, os.strerror(code), str(folder)) from error
        raise DiskError(
            f"{folder} cannot be written: {text.splitlines()[0]}",
            hint="Look for a quota, a limit (ulimit -f) or a failing disk; a rerun resumes from the last checkpoint.",
        ) from error


def _line(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, ensure_ascii=False) + "\n").encode()
