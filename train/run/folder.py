"""A run's folder: what was begun, how far it is, and what is finished.

    models/<run>/run.json          what the run is: settings and inputs, written first
                 checkpoint-N/     a whole model with the state of the optimizer, the newest few
                 best/             the model of the best evaluation so far
                 metrics.jsonl     one JSON object for each logged training loss and each evaluation
                 samples.jsonl     what it wrote at each evaluation, where asked for
                 curves.png        loss, bits per character and learning rate as a picture
                 README.md         the model card
                 tensorboard/      event files, where asked for
                 config.json model.safetensors tokenizer.json ...   the finished model
                 ledger.json       written last

Invariants: a checkpoint under its name is whole: it is made in `.saving/`, fsynced and renamed; when a run goes on,
`metrics.jsonl` and `samples.jsonl` hold no step that the checkpoint does not know, so none is there twice or missing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from corpus.pipeline.errors import DiskError, TrainError
from corpus.pipeline.workspace.files import FINISHED_MODE, disk_errors, json_lines, remove_leftovers, write_atomic
from corpus.pipeline.workspace.ledger import LEDGER, FileDigest, Ledger, changes, read_ledger
from corpus.train.run.plan import STAGE, VERSION, Plan

BEST = "best"
_BEGUN = "run.json"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_SAVING_MODE = 0o700
_LOW_DISK_BYTES = 64 << 20


class RunFolder:
    """The folder of one run; only the first process of a run writes in it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.path = plan.folder
        self.metrics = plan.folder / "metrics.jsonl"
        self.samples = plan.folder / "samples.jsonl"
        self.saving = plan.folder / ".saving"

    def finished(self) -> tuple[Ledger | None, tuple[str, ...]]:
        """The ledger if the run is finished, and what makes it stale.

        Raises:
            TrainError: the folder holds another run, or something else.

        """
        ledger = read_ledger(self.path)
        begun = ledger or self._read_begun()
        if begun is None and self.path.is_dir() and any(not path.name.startswith(".") for path in self.path.iterdir()):
            raise TrainError(
                f"{self.path} holds something that is not a run", hint="Give the run another name with --run."
            )
        reasons = changes(begun, self.path, VERSION, self.plan.settings, self.plan.inputs)
        if begun is not None and begun.fingerprint != self.plan.identity:
            raise TrainError(
                f"the run {self.plan.name} is another one: {'; '.join(reasons)}",
                hint=f"Give this run another name with --run, or delete {self.path}.",
            )
        return ledger, tuple(reasons)

    def checkpoints(self) -> list[tuple[int, Path]]:
        """Steps and folders of the checkpoints, oldest first."""
        found = []
        for path in self.path.glob("checkpoint-*"):
            match = re.fullmatch(r"checkpoint-(\d+)", path.name)
            if match and (path / "trainer_state.json").is_file():
                found.append((int(match[1]), path))
        return sorted(found)

    def begin(self, step: int) -> None:
        """Make the folder ready to go on from a step; at 0 nothing of an earlier attempt is left."""
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path / _BEGUN, self._begun().to_json())
            (self.path / LEDGER).unlink(missing_ok=True)
            remove_leftovers(self.path)
            if step == 0:
                self._drop(
                    [path for _, path in self.checkpoints()] + [path for path in (self.path / BEST,) if path.is_dir()]
                )
                shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
            shutil.rmtree(self.saving, ignore_errors=True)
            self.saving.mkdir(mode=_SAVING_MODE, exist_ok=True)
            for path in (self.metrics, self.samples):
                kept = [line for line in json_lines(path) if line["step"] <= step]
                if kept or path == self.metrics:
                    write_atomic(path, b"".join(map(_line, kept)))
                else:
                    path.unlink(missing_ok=True)

    def note(self, line: Mapping[str, Any]) -> None:
        """Add a line to `metrics.jsonl`."""
        with disk_errors(self.metrics), self.metrics.open("ab") as file:
            file.write(_line(line))

    def note_sample(self, line: Mapping[str, Any]) -> None:
        """Add a line to `samples.jsonl`."""
        with disk_errors(self.samples), self.samples.open("ab") as file:
            file.write(_line(line))

    def history(self) -> list[dict[str, Any]]:
        """The whole lines of `metrics.jsonl`; what a killed run left of a last one is passed over."""
        return json_lines(self.metrics)

    def keep_best(self, *, tokenizer: Path) -> None:
        """Let the model in `.saving/best` take the place of the best one so far."""
        with disk_errors(self.path):
            self._finish_saved(self.saving / "best", tokenizer)
            self._drop(path for path in (self.path / BEST,) if path.is_dir())
            (self.saving / "best").rename(self.path / BEST)
            _fsync(self.path)

    def keep_checkpoint(self, step: int, *, tokenizer: Path, mixture: Mapping[str, Any], limit: int) -> None:
        """Give the checkpoint in `.saving/` its name and drop the oldest ones over the limit."""
        name = f"checkpoint-{step}"
        with disk_errors(self.path):
            for path in (self.metrics, self.samples):
                if path.is_file():
                    _fsync(path)
            write_atomic(self.saving / name / "mixture.json", _line(mixture))
            self._finish_saved(self.saving / name, tokenizer)
            (self.saving / name).rename(self.path / name)
            _fsync(self.path)
            self._drop(path for _, path in self.checkpoints()[:-limit])

    def keep_model(self, *, tokenizer: Path) -> None:
        """Move the model in `.saving/model` to its place."""
        source = self.saving / "model"
        with disk_errors(self.path):
            self._finish_saved(source, tokenizer)
            for path in sorted(source.iterdir()):
                path.replace(self.path / path.name)
            _fsync(self.path)
            shutil.rmtree(self.saving)

    def finished_files(self) -> list[Path]:
        """What the ledger answers for: the model, the best one, the curve, the picture and the card."""
        apart = {LEDGER, "timings.json", _BEGUN}
        files = [path for path in self.path.iterdir() if path.is_file() and path.name not in apart]
        return sorted(files + [path for path in (self.path / BEST).glob("*") if path.is_file()])

    def _drop(self, checkpoints: Iterable[Path]) -> None:
        """Delete checkpoints by a rename first, so that none is ever half there."""
        self.saving.mkdir(mode=_SAVING_MODE, exist_ok=True)
        for path in checkpoints:
            aside = self.saving / f"{path.name}.old"
            path.rename(aside)
            shutil.rmtree(aside)

    def _finish_saved(self, folder: Path, tokenizer: Path) -> None:
        """Add the tokenizer byte for byte, take out the pickled arguments with this machine's paths, and fsync."""
        (folder / "training_args.bin").unlink(missing_ok=True)
        for name in _TOKENIZER_FILES:
            if (tokenizer / name).is_file():
                shutil.copyfile(tokenizer / name, folder / name)
        for path in folder.iterdir():
            with contextlib.suppress(OSError):  # not every file system has modes
                path.chmod(FINISHED_MODE)
        for path in (*folder.iterdir(), folder):
            _fsync(path)

    def _begun(self) -> Ledger:
        plan = self.plan
        return Ledger(
            stage=STAGE, dataset=None, version=VERSION, config=plan.settings, inputs=plan.inputs, outputs=[], counts={},
            fingerprint=plan.identity,
        )  # fmt: skip

    def _read_begun(self) -> Ledger | None:
        try:
            values = json.loads((self.path / _BEGUN).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise TrainError(f"{self.path / _BEGUN} cannot be read: {error}", hint=f"Delete {self.path}.") from error
        values.pop("schema", None)
        values["inputs"] = [FileDigest(**entry) for entry in values["inputs"]]
        return Ledger(**values)


@contextlib.contextmanager
def saving_errors(folder: Path) -> Iterator[None]:
    """Turn what torch and safetensors say when a disk refuses them into a DiskError: they hide the error's number."""
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
            hint="Look for a quota, a limit (ulimit -f) or a failing disk; a rerun goes on from the last checkpoint.",
        ) from error


def _line(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, ensure_ascii=False) + "\n").encode()


def _fsync(path: Path) -> None:
    if path.exists():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
