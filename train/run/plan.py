"""The plan of a run, made before anything is written: its rows, steps, identity and folder.

In: the configuration and the ledgers of the packed datasets. Out: a `RunPlan`, the same for equal configuration and
equal rows on any machine.
Invariant: settings that change the weights or the measurements are part of a run's identity; device, workers, rows of a
pass and the steps of checkpoints are not.
Cost: reads ledgers, and the segments of all rows, about a second per million rows; hashes packed rows that are new.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from corpus.pipeline.errors import TokenizerError, TrainError, WorkspaceError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage.row_shards import open_rows
from corpus.pipeline.tokenizer import files, special_tokens
from corpus.pipeline.workspace.checked import check_all, checked
from corpus.pipeline.workspace.layout import OUTSIDE, ROWS, Workspace
from corpus.pipeline.workspace.ledger import LEDGER, FileDigest, Ledger, fingerprint, read_ledger
from corpus.train.config import DECAY_SHARE, TrainConfig
from corpus.train.data.collate import Rows
from corpus.train.data.mixture import MAX_REPEATS, Share, shares, sizes
from corpus.train.data.schedule import Steps, warmup_steps
from corpus.train.model import architecture
from corpus.train.model.memory import FORWARD_SHARE

STAGE = "train"
VERSION = 3
_EVALUATIONS = 10
_EVALUATION_SHARE = 1 / 20
_SAVE_STEPS = 500
AREAS = {"text": ROWS["text"], "sft": ROWS["chat"]}
"""Folder of the rows of each objective."""
_PACK = {"packed": "corpus pack", "chat": "corpus pack --form chat"}
_AS_GIVEN = (
    "objective", "warmup", "warmup_tokens", "ramp_from", "ramp_tokens", "early_stop", "weight_decay", "beta1", "beta2",
    "clip", "seed", "document_mask", "precision", "log_steps", "eval_rows",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
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
    """Validation rows by dataset; a dataset without any is left out."""
    seq_length: int
    vocab_size: int
    separator: int
    """Id of the separator."""
    pad: int
    """Id of the padding."""
    shares: Sequence[Share]
    """Rows taken from each dataset, in the order of the rows."""
    tokens: np.ndarray
    """[rows] tokens of each training row without its padding."""
    steps: Steps
    warmup_steps: int
    answer_after: int | None
    """Id of the token after which labels begin, with the objective `sft`."""
    question_after: int | None
    """Id of the token after which they end, with the objective `sft`."""
    evaluated_rows: int
    """Rows of one evaluation over all datasets."""
    eval_steps: int
    save_steps: int

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    def ledger(self, *, outputs: Sequence[FileDigest] = (), counts: Mapping[str, Any] | None = None) -> Ledger:
        """The run's ledger; without outputs and counts it describes a run that begins."""
        return Ledger(
            stage=STAGE, dataset=None, version=VERSION, config=self.settings, inputs=self.inputs, outputs=outputs,
            counts=counts or {}, fingerprint=self.identity,
        )  # fmt: skip


def make(
    config: TrainConfig, workspace: Workspace, *, model_files: Sequence[Path] = (), progress: Progress = SILENT
) -> RunPlan:
    """Plan a run; `model_files` are the configuration and weights of `init`, or the configuration of `architecture`.

    Raises:
        WorkspaceError: no dataset is packed, or not the one asked for.
        TokenizerError: rows were packed with another tokenizer than the workspace's.
        DamageError: a file of packed rows is not what its ledger says.
        TrainError: the datasets' rows differ in length, or there are no training rows.

    """
    area = AREAS[config.objective]
    ledgers = _ledgers(config, workspace, area, progress)
    vocabulary = _vocabulary(workspace)
    _check_tokenizers(ledgers, workspace, area)
    seq_length, names = _seq_length(ledgers), list(ledgers)
    splits = {name: open_rows(workspace.root / area / name) for name in names}
    train = _training_rows(splits)
    validation = {name: Rows([rows["validation"]]) for name, rows in splits.items() if len(rows.get("validation", ()))}
    if config.early_stop and not validation:
        raise TrainError("--early-stop needs validation rows, and no dataset has any", hint="Leave --early-stop out.")
    tokens = sizes(train)
    shares, steps = _mixture(config, splits, tokens, seq_length)
    evaluated_rows = sum(min(len(rows), config.eval_rows or len(rows)) for rows in validation.values())
    eval_steps = config.eval_steps or _eval_steps(steps, evaluated_rows)
    inputs = _inputs(workspace, area, names, model_files)
    settings = _settings(config, names, seq_length, vocabulary.get_vocab_size()) | {"eval_steps": eval_steps}
    identity = fingerprint(STAGE, VERSION, settings, inputs)
    return RunPlan(
        folder=workspace.models / (config.run or f"{settings['model']}-{identity[:6]}"),
        settings=settings,
        inputs=inputs,
        identity=identity,
        train=train,
        validation=validation,
        seq_length=seq_length,
        vocab_size=vocabulary.get_vocab_size(),
        separator=_special(vocabulary, special_tokens.SEPARATOR),
        pad=_special(vocabulary, special_tokens.PAD),
        shares=shares,
        tokens=tokens,
        steps=steps,
        warmup_steps=warmup_steps(config, steps, seq_length),
        answer_after=_special(vocabulary, special_tokens.ASSISTANT) if config.objective == "sft" else None,
        question_after=_special(vocabulary, special_tokens.USER) if config.objective == "sft" else None,
        evaluated_rows=evaluated_rows,
        eval_steps=eval_steps,
        save_steps=config.save_steps or min(_SAVE_STEPS, math.ceil(steps.count / 10)),
    )


def _mixture(
    config: TrainConfig, splits: Mapping[str, Any], tokens: np.ndarray, seq_length: int
) -> tuple[list[Share], Steps]:
    """The rows taken from each dataset, and the steps."""
    rows = {name: len(parts["train"]) for name, parts in splits.items() if len(parts.get("train", ()))}
    edges = np.cumsum([0, *rows.values()])
    sums = [int(tokens[begin:end].sum()) for begin, end in itertools.pairwise(edges.tolist())]
    ramp = {"ramp_from": config.ramp_from or 1, "ramp_rows": -(-(config.ramp_tokens or 0) // seq_length)}
    batch_size = config.batch_size or config.preset.batch_size
    wanted = max(1, round((config.epochs or 1.0) * len(tokens)))
    if config.max_steps:
        wanted = Steps(batch_size=batch_size, count=config.max_steps, **ramp).total
    if config.is_weighted and (lacking := sorted(config.mixture.keys() - rows.keys())):
        raise TrainError(
            f"{lacking[0]} has a weight and no training rows",
            hint=f"Leave --dataset {lacking[0]} out, or run `corpus pack` for it again.",
        )
    weights = [weight for name in rows if (weight := config.mixture.get(name)) is not None] or None
    found = shares(list(rows), list(rows.values()), sums, weights, total=wanted, max_repeats=_max_repeats(config))
    return found, Steps(batch_size=batch_size, total=sum(share.taken for share in found), **ramp)


def _max_repeats(config: TrainConfig) -> float | None:
    return config.max_repeats or (MAX_REPEATS if config.is_weighted else None)


def _vocabulary(workspace: Workspace) -> Tokenizer:
    """The workspace's tokenizer, once it was compared with its ledger."""
    path = workspace.tokenizer / "tokenizer.json"
    return files.load(checked(workspace, path).parent if path.exists() else workspace.tokenizer)


def _special(vocabulary: Tokenizer, token: str) -> int:
    number = vocabulary.token_to_id(token)
    if number is None:
        raise TokenizerError(f"the tokenizer has no {token}", hint="Run `corpus tokenizer` again.")
    return number


def _ledgers(config: TrainConfig, workspace: Workspace, area: str, progress: Progress) -> dict[str, Ledger]:
    pack = _PACK[area]
    names = sorted(config.mixture) or workspace.finished(area)
    if not names:
        raise WorkspaceError(f"{workspace.root} holds no {area} rows", hint=f"Run `{pack}` first.")
    ledgers = {}
    for name in names:
        folder = workspace.root / area / name
        ledger = read_ledger(folder)
        if ledger is None:
            raise WorkspaceError(f"{name} is not packed", hint=f"Run `{pack} --dataset {name}` first.")
        check_all(workspace, folder, ledger.outputs, progress)
        ledgers[name] = ledger
    return ledgers


def _check_tokenizers(ledgers: Mapping[str, Ledger], workspace: Workspace, area: str) -> None:
    path = workspace.tokenizer / "tokenizer.json"
    ours = workspace.digest(path)
    for name, ledger in ledgers.items():
        theirs = {entry.path: entry.sha256 for entry in ledger.inputs}.get(workspace.relative(path), "none")
        if theirs != ours:
            raise TokenizerError(
                f"{name} was packed with the tokenizer {theirs[:12]}, the workspace holds {ours[:12]}",
                hint=f"Run `{_PACK[area]} --dataset {name}` again.",
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


def _eval_steps(steps: Steps, rows: int) -> int:
    """About ten evaluations of so many rows in a run, and at most a twentieth of its time."""
    affordable = rows * FORWARD_SHARE / _EVALUATION_SHARE / steps.batch_size
    return max(1, math.ceil(steps.count / _EVALUATIONS), math.ceil(affordable))


def _inputs(workspace: Workspace, area: str, names: Sequence[str], model_files: Sequence[Path]) -> list[FileDigest]:
    ours = [workspace.root / area / name / LEDGER for name in names] + [workspace.tokenizer / "tokenizer.json"]
    inputs = [workspace.file_digest(path) for path in ours]
    return inputs + [
        FileDigest(f"{OUTSIDE}{path.name}", path.stat().st_size, workspace.digest(path)) for path in model_files
    ]


def _shape(config: TrainConfig) -> dict[str, Any]:
    """Name, family and size of the model; a GPT-2 has no family, as in the ledgers of earlier versions."""
    if config.init:
        return {"model": "init"}
    preset = config.preset
    if config.architecture:
        shape = architecture.read(config.architecture)
        sizes = {"layers": "num_hidden_layers", "width": "hidden_size", "heads": "num_attention_heads"}
        named = {name: getattr(shape, attribute, None) for name, attribute in sizes.items()}
        return {"model": shape.model_type, "family": shape.model_type, **named}
    family = {} if preset.family == "gpt2" else {"family": preset.family}
    return {"model": config.model, **family, "layers": preset.layers, "width": preset.width, "heads": preset.heads}


def _settings(config: TrainConfig, names: Sequence[str], seq_length: int, vocab_size: int) -> dict[str, Any]:
    """The settings of the ledger, defaults resolved."""
    preset = config.preset
    dropout = config.dropout if config.dropout is not None or not config.is_preset else preset.dropout
    length = {"max_steps": config.max_steps} if config.max_steps else {"epochs": config.epochs}
    return {
        **_shape(config),
        **length,
        **{name: getattr(config, name) for name in _AS_GIVEN},
        "datasets": sorted(config.datasets) or list(names),
        "max_repeats": _max_repeats(config),
        "decay_to": config.decay_to if config.decay_to is not None else preset.decay_to,
        "batch_size": config.batch_size or preset.batch_size,
        "learning_rate": config.learning_rate or preset.learning_rate,
        "dropout": dropout,
        "seq_length": seq_length,
        "vocab_size": vocab_size,
        **_chosen(config),
    }


def _chosen(config: TrainConfig) -> dict[str, Any]:
    """Settings that are recorded only where they are not the default, so that older runs stay current."""
    chosen: dict[str, Any] = {}
    if config.optimizer != "adamw":
        rate = config.learning_rate or config.preset.learning_rate
        chosen |= {"optimizer": config.optimizer, "adam_learning_rate": config.adam_learning_rate or rate}
    if config.schedule != "cosine":
        chosen["schedule"] = config.schedule
    if config.schedule == "wsd":
        chosen["decay_share"] = config.decay_share or DECAY_SHARE
    return chosen
