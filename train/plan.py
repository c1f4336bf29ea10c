"""What a run will do, decided before anything is written: the rows, the steps, the run's identity and its folder.

In: the configuration and the ledgers of the packed datasets. Out: a `Plan`, the same for equal configuration and equal
rows on any machine.
Invariant: how a run is carried out (device, workers, rows of a pass, where checkpoints fall) is no part of its
identity; what shapes the weights or is measured on the way is.
Cost: ledgers and sizes of files; rows are opened, not read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from corpus.pipeline import tokenizer
from corpus.pipeline.errors import DamageError, TokenizerError, TrainError, WorkspaceError
from corpus.pipeline.shards import open_rows
from corpus.pipeline.workspace import LEDGER, OUTSIDE, FileDigest, Ledger, Workspace, changes, fingerprint, read_ledger
from corpus.train.collate import Rows
from corpus.train.config import TrainConfig

STAGE = "train"
VERSION = 1
_EVALUATIONS = 10
_EVALUATION_SHARE = 1 / 20
_FORWARD_SHARE = 1 / 3
_SAVE_STEPS = 500
_AS_GIVEN = (
    "warmup", "weight_decay", "beta1", "beta2", "clip", "seed", "document_mask", "precision", "log_steps", "eval_rows",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Everything about a run that does not depend on the machine."""

    folder: Path
    """The run's folder."""
    settings: Mapping[str, Any]
    """The ledger's `config`."""
    inputs: Sequence[FileDigest]
    identity: str
    """Fingerprint of version, settings and inputs."""
    train: Rows
    validation: Mapping[str, Rows]
    """The validation rows of each dataset that has some."""
    seq_length: int
    vocab_size: int
    separator: int
    """Id of the separator."""
    pad: int
    """Id of the padding."""
    total: int
    """Rows that the run takes, epochs laid end to end."""
    steps: int
    batch_size: int
    learning_rate: float
    eval_steps: int
    save_steps: int

    @property
    def epochs(self) -> float:
        """How often each row is seen."""
        return self.total / len(self.train)

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name


def make(config: TrainConfig, workspace: Workspace, *, model_files: Sequence[Path] = ()) -> Plan:
    """Decide what a run does.

    Args:
        config: what the user set.
        workspace: where the packed datasets lie.
        model_files: configuration and weights that the run starts from, with `init`.

    Raises:
        WorkspaceError: nothing is packed, or a dataset asked for is not.
        TokenizerError: rows were packed with another tokenizer than the workspace's.
        DamageError: a file of packed rows is missing or has another size.
        TrainError: the datasets' rows differ in length, or there are none.

    """
    ledgers = _ledgers(config, workspace)
    _check_tokenizers(ledgers, workspace)
    seq_length, names = _seq_length(ledgers), list(ledgers)
    vocabulary = tokenizer.load(workspace.tokenizer)
    splits = {name: open_rows(workspace.packed(name)) for name in names}
    train = _training_rows(splits)
    validation = {name: Rows([rows["validation"]]) for name, rows in splits.items() if len(rows.get("validation", ()))}
    batch_size = config.batch_size or config.preset.batch_size
    total = config.max_steps * batch_size if config.max_steps else max(1, round(config.epochs * len(train)))
    steps = -(-total // batch_size)
    eval_steps = config.eval_steps or _eval_steps(steps, batch_size, config.eval_rows, validation)
    inputs = _inputs(workspace, names, model_files)
    settings = _settings(config, names, seq_length, vocabulary.get_vocab_size()) | {"eval_steps": eval_steps}
    identity = fingerprint(STAGE, VERSION, settings, inputs)
    return Plan(
        folder=workspace.models / (config.run or f"{settings['model']}-{identity[:6]}"),
        settings=settings,
        inputs=inputs,
        identity=identity,
        train=train,
        validation=validation,
        seq_length=seq_length,
        vocab_size=vocabulary.get_vocab_size(),
        separator=_special(vocabulary, tokenizer.SEPARATOR),
        pad=_special(vocabulary, tokenizer.PAD),
        total=total,
        steps=steps,
        batch_size=batch_size,
        learning_rate=settings["learning_rate"],
        eval_steps=eval_steps,
        save_steps=config.save_steps or min(_SAVE_STEPS, math.ceil(steps / 10)),
    )


def _special(vocabulary: Tokenizer, token: str) -> int:
    number = vocabulary.token_to_id(token)
    if number is None:
        raise TokenizerError(f"the tokenizer has no {token}", hint="Run `corpus tokenizer` again.")
    return number


def _ledgers(config: TrainConfig, workspace: Workspace) -> dict[str, Ledger]:
    names = sorted(set(config.datasets)) or workspace.finished("packed")
    if not names:
        raise WorkspaceError(f"{workspace.root} holds no packed rows", hint="Run `corpus pack` first.")
    ledgers = {}
    for name in names:
        folder = workspace.packed(name)
        ledger = read_ledger(folder)
        if ledger is None:
            raise WorkspaceError(f"{name} is not packed", hint=f"Run `corpus pack --dataset {name}` first.")
        damage = changes(ledger, folder, ledger.version, ledger.config, ledger.inputs)
        if damage:
            raise DamageError(f"{folder}: {damage[0]}", hint=f"Run `corpus pack --dataset {name}` again.")
        ledgers[name] = ledger
    return ledgers


def _check_tokenizers(ledgers: Mapping[str, Ledger], workspace: Workspace) -> None:
    tokenizer.load(workspace.tokenizer)
    path = workspace.tokenizer / "tokenizer.json"
    ours = workspace.digest(path)
    for name, ledger in ledgers.items():
        theirs = {entry.path: entry.sha256 for entry in ledger.inputs}.get(workspace.relative(path), "none")
        if theirs != ours:
            raise TokenizerError(
                f"{name} was packed with the tokenizer {theirs[:12]}, the workspace holds {ours[:12]}",
                hint=f"Run `corpus pack --dataset {name}` again.",
            )


def _seq_length(ledgers: Mapping[str, Ledger]) -> int:
    lengths = {name: int(ledger.config["seq_length"]) for name, ledger in ledgers.items()}
    if len(set(lengths.values())) > 1:
        raise TrainError(
            "the datasets were packed to rows of different length: "
            + ", ".join(f"{name} to {length:,}" for name, length in lengths.items()),
            hint="Run `corpus pack` with one --seq-length for all, or name with --dataset those that agree.",
        )
    return next(iter(lengths.values()))


def _training_rows(splits: Mapping[str, Any]) -> Rows:
    parts = [rows["train"] for rows in splits.values() if len(rows.get("train", ()))]
    if not parts:
        raise TrainError(
            f"{', '.join(splits)}: there is no row to train on",
            hint="`corpus trace --rejected too_short` shows what was dropped.",
        )
    return Rows(parts)


def _eval_steps(steps: int, batch_size: int, eval_rows: int, validation: Mapping[str, Rows]) -> int:
    """About ten evaluations in a run, and at most a twentieth of its time; a row costs a third of one in training."""
    rows = sum(min(len(split), eval_rows) if eval_rows else len(split) for split in validation.values())
    affordable = rows * _FORWARD_SHARE / _EVALUATION_SHARE / batch_size
    return max(1, math.ceil(steps / _EVALUATIONS), math.ceil(affordable))


def _inputs(workspace: Workspace, names: Sequence[str], model_files: Sequence[Path]) -> list[FileDigest]:
    ours = [workspace.packed(name) / LEDGER for name in names] + [workspace.tokenizer / "tokenizer.json"]
    inputs = [workspace.file_digest(path) for path in ours]
    return inputs + [
        FileDigest(f"{OUTSIDE}{path.name}", path.stat().st_size, workspace.digest(path)) for path in model_files
    ]


def _settings(config: TrainConfig, names: Sequence[str], seq_length: int, vocab_size: int) -> dict[str, Any]:
    """What shapes the weights or is measured on the way, with the values that stand for None."""
    preset = config.preset
    size = {} if config.init else {"layers": preset.layers, "width": preset.width, "heads": preset.heads}
    dropout = config.dropout if config.dropout is not None or config.init else preset.dropout
    length = {"max_steps": config.max_steps} if config.max_steps else {"epochs": config.epochs}
    return {
        **size,
        **length,
        **{name: getattr(config, name) for name in _AS_GIVEN},
        "model": "init" if config.init else config.model,
        "datasets": list(names),
        "batch_size": config.batch_size or preset.batch_size,
        "learning_rate": config.learning_rate or preset.learning_rate,
        "dropout": dropout,
        "seq_length": seq_length,
        "vocab_size": vocab_size,
    }
