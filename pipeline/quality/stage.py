"""The quality stage: a learned score, and the documents that it leaves out.

In: `documents/<dataset>/`, the lists of `dedup` and `decontaminate`, and good text: datasets, files, or a trained
model. Out: `quality/lists/`, the documents to leave out; `quality/scores/`, the score of every document;
`quality/model.safetensors`; `quality/positive/`, copies of the files of good text, for later runs.
Invariants: no document is rewritten; documents = left out before + kept + of low quality; the lists depend on
documents, model and settings alone, so workers and interruption change nothing.
Cost: see `quality.sample`, `quality.training` and `quality.scores`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from corpus.pipeline.errors import DamageError, SourceError, WorkspaceError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.quality import lists, model_file, sample, scores, training
from corpus.pipeline.quality.config import QualityConfig
from corpus.pipeline.quality.model_file import Trained
from corpus.pipeline.quality.sample import ScoredShard
from corpus.pipeline.quality.scoring import ALPHA
from corpus.pipeline.storage import removal_lists
from corpus.pipeline.storage.document_shards import document_count, part_number, parts
from corpus.pipeline.storage.selection import LISTS, Selection, datasets_of, documents_of, load
from corpus.pipeline.workers import kept, worker_count
from corpus.pipeline.workspace.checked import bring
from corpus.pipeline.workspace.files import disk_errors, write_atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, Ledger, Report, Stopwatch, fingerprint, output_changes, read_ledger
from corpus.pipeline.workspace.remote import remote_of
from corpus.pipeline.workspace.share import Share, ShareReport
from corpus.pipeline.workspace.stage import StageRun

STAGE = "quality"
VERSION = 1
MODEL = "model.safetensors"
POSITIVE = "positive"
"""Folder of the copies of the files of good text."""
SCORES = "scores"
_BEFORE = LISTS[: LISTS.index(STAGE)]
_SHARE_HINT = "Train one with `corpus quality` in this or another workspace, and give it: `--model FILE`."
_HINT = "Name good text, a dataset or a file: `corpus quality --positive wiki2019zh`."


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a run does."""

    positive: tuple[str, ...]
    """Names of datasets, and of files in `quality/positive/`."""
    fields: tuple[str, ...]
    given: Trained | None
    """A model that was trained elsewhere."""
    names: tuple[str, ...]
    """Datasets that are scored, the positive ones among them."""
    chosen: tuple[str, ...]
    """Datasets that were asked for; empty for all."""
    alpha: float


def run(config: QualityConfig, workspace: Workspace, *, progress: Progress = SILENT) -> Report:
    """Score documents and list those of low quality; the caller holds `workspace.writing()`.

    Raises:
        WorkspaceError: there are no documents, too few texts to train on, or scikit-learn is missing.
        SourceError: a file of good text or a model cannot be read.
        DamageError: a documents shard, a list or the given model is not what its ledger says.
        WorkerError, DiskError, BooksError: as their names say; a rerun resumes.

    """
    ready = prepare(config, workspace, progress)
    stage, plan, folder = ready.stage, ready.plan, workspace.quality
    if report := stage.skipped():
        return report
    shards = ready.shards()
    with kept():
        trained = plan.given or _kept_model(stage, ready.identity)
        if trained is None:
            training.check_installed()
            texts = [sample.read_texts(path, plan.fields) for path in ready.files]
            drawn = sample.draw(shards, texts, plan.positive, config.workers, progress)
            trained = sample.train(drawn, [*shards, *texts], plan.positive, ready.identity, config.workers, progress)
        stage.begin()
        if not plan.given:
            _delete_others(folder / POSITIVE, plan.positive)
        digest = _write_model(folder, trained)
        scores.write_scores(stage, shards, folder / SCORES, folder / MODEL, digest, config.workers)
    written, counts = _write_lists(workspace, shards, plan, ready.left_out, progress)
    return stage.finish(
        outputs=[folder / MODEL, *written, *(shard.scores for shard in shards)],
        counts={"model": trained.facts, "datasets": counts},
        check_books=partial(lists.check_books, folder, ready.ledgers, counts),
        timings={"workers": worker_count(config.workers, None)},
        notes=lists.notes_on(counts, plan.alpha),
    )


def run_share(config: QualityConfig, workspace: Workspace, share: Share, *, progress: Progress = SILENT) -> ShareReport:
    """Score a share of the documents with a given model; the caller holds `workspace.sharing()`.

    Raises:
        WorkspaceError: there are no documents, or no model is given.
        SourceError, DamageError, WorkerError, DiskError: as `run`.

    """
    if config.model is None:
        raise WorkspaceError("no model is given to score with", hint=_SHARE_HINT)
    ready = prepare(config, workspace, progress, share)
    stage, trained = ready.stage, ready.plan.given
    if stage.skipped() or trained is None:
        return stage.already_finished()
    stage.begin()
    digest = _write_model(stage.folder, trained)
    return scores.write_share(stage, ready.shards(), stage.folder / MODEL, digest, config.workers)


def _write_model(folder: Path, trained: Trained) -> str:
    """Write the model into the workspace; returns its SHA-256."""
    data = model_file.to_bytes(trained)
    write_atomic(folder / MODEL, data)
    if (remote := remote_of(folder)) is not None:
        remote.offer([folder / MODEL])
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """A run of the stage, or of a share of it, with what it reads."""

    workspace: Workspace
    stage: StageRun
    plan: _Plan
    identity: str
    """Of the model."""
    files: Sequence[Path]
    """Files of good text that a model is trained on."""
    ledgers: Mapping[str, Ledger]
    """Of the documents of each dataset."""
    left_out: Mapping[str, Selection]

    def shards(self) -> list[ScoredShard]:
        """The documents shards."""
        return list(_shards(self.workspace, self.ledgers, self.left_out))


def prepare(config: QualityConfig, workspace: Workspace, progress: Progress, share: Share | None = None) -> Ready:
    """Take the good text, read what decides the lists, and compare the stage with it."""
    watch, folder = Stopwatch(), workspace.quality
    plan = _plan(config, workspace)
    ledgers = {name: documents_of(workspace, name, progress, read=False) for name in plan.names}
    left_out = {name: load(workspace, name, areas=_BEFORE) for name in plan.names}
    inputs = [workspace.file_digest(workspace.documents(name) / LEDGER) for name in plan.names]
    inputs += [entry for own in left_out.values() for entry in own.inputs]
    files = [] if plan.given else [folder / POSITIVE / name for name in plan.positive if name not in ledgers]
    inputs += map(workspace.file_digest, files)
    settings: dict[str, Any] = {**training.SETTINGS, "sample": sample.MOST}
    settings |= {"datasets": list(plan.names), "positive": list(plan.positive), "fields": list(plan.fields)}
    identity = plan.given.identity if plan.given else fingerprint("quality model", VERSION, settings, inputs)
    given = hashlib.sha256(model_file.to_bytes(plan.given)).hexdigest() if plan.given else None
    stage = StageRun(
        workspace, folder, stage=STAGE, version=VERSION, inputs=inputs, watch=watch, progress=progress,
        config={**settings, "model": given, "alpha": plan.alpha, "chosen": sorted(plan.chosen)}, share=share,
    )  # fmt: skip
    return Ready(
        workspace=workspace, stage=stage, plan=plan, identity=identity, files=files, ledgers=ledgers, left_out=left_out
    )


def _plan(config: QualityConfig, workspace: Workspace) -> _Plan:
    """What is asked for, with what the last run was given where it is not given again."""
    before, positive, fields, model = read_ledger(workspace.quality), config.positive, config.fields, config.model
    chosen, alpha = config.datasets, config.alpha
    if not positive and model is None:
        if before is None:
            raise WorkspaceError("it is not said what good text is", hint=_HINT)
        positive, fields = tuple(before.config["positive"]), tuple(before.config["fields"])
        model = _model_of(before, workspace)
        chosen, alpha = chosen or tuple(before.config["chosen"]), alpha or before.config["alpha"]
        for name in positive if model is None else ():
            if name not in workspace.datasets() and not (workspace.quality / POSITIVE / name).is_file():
                raise WorkspaceError(f"{name}, the good text of the last run, is no longer there", hint=_HINT)
    every = datasets_of(workspace, ())
    given = model_file.read(model.expanduser()) if model else None
    if given:
        positive, fields = tuple(given.facts["positive"]), ()
    elif config.positive:
        positive = _take_files(workspace, dict.fromkeys(positive), fields)
    good = [name for name in workspace.datasets() if name in positive]
    both = sorted({*good} & {*chosen})
    if both:
        raise WorkspaceError(
            f"--dataset {both[0]}: nothing is left out of a dataset of good text", hint="Name others with --dataset."
        )
    if not given:
        datasets_of(workspace, good)  # one without documents is named
    scored = {*datasets_of(workspace, chosen)} if chosen else {*every} - {*good}
    if not scored:
        raise WorkspaceError(
            f"there is no text to compare {', '.join(good)} with",
            hint="Ingest another dataset, or name fewer with --positive.",
        )
    names = tuple(name for name in every if name in {*scored, *good})
    return _Plan(positive, fields, given, names, chosen, ALPHA if alpha is None else alpha)


def _take_files(workspace: Workspace, named: Iterable[str], fields: Sequence[str]) -> tuple[str, ...]:
    """Copy files of good text into the workspace, and give the names of all positives."""
    folder, names, known = workspace.quality / POSITIVE, list[str](), workspace.datasets()
    for name in named:
        if name in known:
            names.append(name)
            continue
        path = Path(name).expanduser()
        if not path.is_file():
            raise SourceError(
                f"--positive {name} is neither a dataset nor a file", hint=f"The datasets are {', '.join(known)}."
            )
        if path.name in names or path.name in known:
            raise SourceError(f"--positive {name}: another one has this name", hint="Rename the file.")
        sample.read_texts(path, fields)
        with disk_errors(folder):
            write_atomic(folder / path.name, path.read_bytes())
        names.append(path.name)
    return tuple(names)


def _delete_others(folder: Path, names: Sequence[str]) -> None:
    """Delete the copies of files that are good text no longer, once the ledger that names them is gone."""
    with disk_errors(folder):
        for path in folder.glob("*"):
            if path.name not in names:
                path.unlink()


def _model_of(before: Ledger, workspace: Workspace) -> Path | None:
    """The model that the last run was given; None where it trained one."""
    path = workspace.quality / MODEL
    if before.config["model"] is None:
        return None
    bring(workspace, workspace.quality)
    if not path.is_file() or workspace.digest(path) != before.config["model"]:
        raise DamageError(
            f"{path} is no longer the model that was given", hint="Give it again: `corpus quality --model FILE`."
        )
    return path


def _shards(
    workspace: Workspace, ledgers: Mapping[str, Ledger], left_out: Mapping[str, Selection]
) -> Iterator[ScoredShard]:
    """The documents shards that the ledgers name."""
    for name, ledger in ledgers.items():
        known = {output.path: output.sha256 for output in ledger.outputs}
        paths = [path for path in parts(workspace.documents(name)) if path.name in known]
        digests = left_out[name].digests([part_number(path)] for path in paths)
        for path, digest in zip(paths, digests, strict=True):
            made, own = f"{known[path.name]} {digest}", left_out[name].of([path])
            yield ScoredShard(
                name, path, document_count(path), own, made, workspace.quality / SCORES / name / path.name
            )


def _kept_model(stage: StageRun, identity: str) -> Trained | None:
    """The model of an earlier run, where it was trained on the same sample and is as its ledger says."""
    if stage.before and MODEL in dict(output_changes(stage.before, stage.folder, stage.workspace.digest)):
        return None
    with suppress(SourceError):  # none, or one that cannot be read
        trained = model_file.read(stage.folder / MODEL)
        return trained if trained.identity == identity else None
    return None


def _write_lists(
    workspace: Workspace,
    shards: Sequence[ScoredShard],
    plan: _Plan,
    left_out: Mapping[str, Selection],
    progress: Progress,
) -> tuple[list[Path], dict[str, Any]]:
    """Write the lists of all datasets, and delete others; returns the files, and the counts of each dataset."""
    written, counts = list[Path](), dict[str, Any]()
    with disk_errors(workspace.quality):
        removal_lists.delete_others(workspace.quality, plan.names, [])
    with progress.bar("quality: lists", len(plan.names), "datasets"):
        for name in plan.names:
            own = [shard for shard in shards if shard.dataset == name]
            good = name in plan.positive
            files, found = lists.write_lists(workspace, name, own, is_positive=good, alpha=plan.alpha)
            written += files
            counts[name] = found.to_counts(left_out[name].documents.total())
            progress.advance(1)
    return written, counts
