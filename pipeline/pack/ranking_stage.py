"""The stage of `corpus pack --form ranking`: documents become rankings of the answers to one question.

In: `documents/<dataset>/`, whose documents are rankings or answers with votes, and `tokenizer/`. Out:
`ranking/<dataset>/`: a DatasetDict that `datasets.load_from_disk` opens.
Invariants: documents = read + left out by the lists; answers read = used + left out for a reason; a question is in one
split; workers, interruption and engine change nothing. A rerun keeps the partitions that have a receipt.
Cost: all documents are read and the texts of missing partitions written once more, in a rerun and in each job of an
array, too; a worker holds one partition.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from corpus.pipeline import pieces
from corpus.pipeline import workers as pool
from corpus.pipeline.errors import BooksError, WorkspaceError
from corpus.pipeline.manifest import SPLITS
from corpus.pipeline.manifest.schema import Votes
from corpus.pipeline.pack import rankings
from corpus.pipeline.pack.ranking_partitions import Partition, count, divide
from corpus.pipeline.pack.ranking_shard import Packed, pack_partition, piece_name
from corpus.pipeline.pack.rankings import Rules
from corpus.pipeline.pack.shard import Layout, layout_of
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage import removals, selection
from corpus.pipeline.storage.document_shards import check_sample
from corpus.pipeline.storage.ranking_shards import describe_rankings
from corpus.pipeline.storage.row_shards import describe_state
from corpus.pipeline.tokenizer import encoders
from corpus.pipeline.tokenizer.files import load as load_tokenizer
from corpus.pipeline.tokenizer.files import tokenizer_digest
from corpus.pipeline.workspace.files import disk_errors, remove_leftovers, write_files
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, Report, Stopwatch, read_ledger
from corpus.pipeline.workspace.receipts import Receipt
from corpus.pipeline.workspace.share import Share, ShareReport
from corpus.pipeline.workspace.stage import StageRun

STAGE = "ranking"
VERSION = 2
LONGEST = 1024
"""Tokens of a question with an answer."""
_HINT = (
    "Rankings come from a manifest of the form ranking, or from one of the form question with [document.votes], as "
    "webtext2019zh has it."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RankingConfig:
    """How one dataset's documents become rankings."""

    dataset: str
    """Name of the dataset."""
    seq_length: int = LONGEST
    """Most tokens of a question with an answer, the separators included; longer ones are left out."""
    min_ratio: float = rankings.FACTOR
    """Least ratio of the scores of two answers."""
    max_answers: int = rankings.MOST_ANSWERS
    """Most answers of a question."""
    max_pairs: int = rankings.MOST_PAIRS
    """Most pairs of a question."""
    any_age: bool = False
    """Whether the better answer may be the older one."""
    workers: int = 0
    """Worker processes; one for each core when 0. The result does not depend on it."""

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        if self.seq_length < 4:
            raise ValueError(f"--seq-length must be at least 4, is {self.seq_length:,}")
        if not 1 <= self.min_ratio < float("inf"):
            raise ValueError(f"--min-ratio must be at least 1, is {self.min_ratio}")
        if not 2 <= self.max_answers <= 1 << 10:
            raise ValueError(f"--max-answers must be at least 2 and at most 1024, is {self.max_answers}")
        if self.max_pairs < 1:
            raise ValueError(f"--max-pairs must be at least 1, is {self.max_pairs}")
        if self.workers < 0:
            raise ValueError(f"--workers must not be negative, is {self.workers}")

    @property
    def rules(self) -> Rules:
        """What makes one answer better than another."""
        return Rules(factor=self.min_ratio, answers=self.max_answers, pairs=self.max_pairs, any_age=self.any_age)


def can_rank(workspace: Workspace, dataset: str) -> bool:
    """Whether the manifest of a dataset says which of two answers is better."""
    manifest = workspace.manifest(dataset)
    return manifest.has_rankings or manifest.votes is not None


def run(config: RankingConfig, workspace: Workspace, *, progress: Progress = SILENT) -> Report:
    """Make the rankings of a dataset; the caller holds `workspace.writing()`.

    Raises:
        WorkspaceError: there are no documents, or no tokenizer, or no two answers that can be compared.
        DamageError: a documents shard, a list or the tokenizer is not what its ledger says.
        WorkerError, DiskError, BooksError: as their names say.

    """
    ready = prepare(config, workspace, progress)
    stage, name = ready.stage, config.dataset
    if report := stage.skipped():
        return report
    kept = _keep_finished(stage)
    partitions = count(workspace.documents(name))
    missing = [at for at in range(partitions) if piece_name(at) not in kept]
    workers = pool.worker_count(config.workers, len(missing))
    with ready.divided(missing) as divided, pool.kept():
        work, check = ready.work(workers, len(missing))
        engines = _pack_all(stage, pool.run_pieces(work, divided, workers=workers), kept, partitions)
    packed = [kept[name] for name in sorted(kept)]
    books, splits = Counter[str](), _splits(packed)
    for each in packed:
        books.update(each.counts["books"])
    if not splits:
        raise WorkspaceError(f"{name} has no two answers that can be compared: {_shown(books, packed)}", hint=_HINT)
    beside = _describe(stage.folder, packed, splits, ready.layout.vocab_size, name, stage.fingerprint)
    chosen = ready.chosen
    counts = {"splits": splits, "encoder_check": check, "left_out": dict(sorted(chosen.reasons.items()))}
    counts |= _counts(books, packed, splits)
    return stage.finish(
        outputs=sorted([*beside, *(stage.folder / output.path for each in packed for output in each.outputs)]),
        counts=counts,
        check_books=partial(_check_books, workspace, name, counts, books["documents"], chosen),
        timings={"engine": ", ".join(engines), "workers": workers},
        notes=_notes(name, counts, len(chosen.removed)),
    )


def run_share(config: RankingConfig, workspace: Workspace, share: Share, *, progress: Progress = SILENT) -> ShareReport:
    """Pack a share of the partitions; the caller holds `workspace.sharing()`. Each job reads all documents.

    Raises:
        WorkspaceError, DamageError, WorkerError, DiskError: as `run`.

    """
    ready = prepare(config, workspace, progress, share)
    stage = ready.stage
    if stage.skipped():
        return stage.already_finished()
    numbered = {piece_name(at): at for at in range(count(workspace.documents(config.dataset)))}

    def work(due: Mapping[str, int]) -> Iterator[Packed]:
        workers = pool.worker_count(config.workers, len(due))
        with ready.divided([*due.values()]) as partitions:
            pack_one, _ = ready.work(workers, len(due))
            yield from pool.run_pieces(pack_one, partitions, workers=workers)

    return pieces.make_share(stage, numbered, work, note=lambda packed: packed.warning)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """A run of the stage, or of a share of it, with what it reads."""

    config: RankingConfig
    workspace: Workspace
    stage: StageRun
    chosen: selection.Selection
    votes: Votes | None
    model: Tokenizer
    layout: Layout

    def divided(self, wanted: Sequence[int]) -> AbstractContextManager[list[Partition]]:
        """Some partitions, with the texts of the documents."""
        name = self.config.dataset
        if wanted:
            self.stage.progress.say(f"{name}: bringing answers to one question together ...")
        return divide(self.stage.folder, self.workspace.documents(name), self.chosen, self.votes, wanted)

    def work(self, workers: int, partitions: int) -> tuple[Callable[[Partition], Packed], dict[str, Any]]:
        """What packs a partition, and the reference's ids of the sample that the encoder was checked on.

        Starts the workers meanwhile, within `pool.kept()`.
        """
        folder = self.workspace.tokenizer
        sample = partial(check_sample, self.workspace.documents(self.config.dataset))
        proof, check = encoders.start_and_prove(folder, self.model, sample, workers=workers, pieces=partitions)
        work = partial(
            pack_partition, folder=self.stage.folder, tokenizer_folder=folder, proof=proof, layout=self.layout,
            rules=self.config.rules, identity=self.stage.fingerprint,
        )  # fmt: skip
        return work, check


def prepare(config: RankingConfig, workspace: Workspace, progress: Progress, share: Share | None = None) -> Ready:
    """Read what decides the rankings, and compare the stage with it."""
    watch, name = Stopwatch(), config.dataset
    selection.documents_of(workspace, name, progress, read=False)  # compares the documents with their ledger
    if not can_rank(workspace, name):
        raise WorkspaceError(f"{name} has no rankings, and no votes on answers", hint=_HINT)
    manifest = workspace.manifest(name)
    votes = None if manifest.has_rankings else manifest.votes
    chosen = selection.load(workspace, name, removals=True)
    inputs = [workspace.file_digest(workspace.documents(name) / LEDGER), *chosen.inputs, tokenizer_digest(workspace)]
    model = load_tokenizer(workspace.tokenizer)
    layout = layout_of(model, form="ranking", strategy="", seq_length=config.seq_length)
    stage = StageRun(
        workspace, workspace.rankings(name), stage=STAGE, version=VERSION, dataset=name, inputs=inputs, watch=watch,
        progress=progress, config=_settings(config, votes, chosen) | {"vocab_size": layout.vocab_size}, share=share,
    )  # fmt: skip
    return Ready(
        config=config, workspace=workspace, stage=stage, chosen=chosen, votes=votes, model=model, layout=layout
    )


def _settings(config: RankingConfig, votes: Votes | None, chosen: selection.Selection) -> dict[str, Any]:
    settings: dict[str, Any] = {"form": "ranking", "seq_length": config.seq_length}
    settings |= {name: getattr(config, name) for name in ("max_answers", "max_pairs")}
    if votes is not None:
        settings |= {"votes": asdict(votes), "min_ratio": config.min_ratio, "any_age": config.any_age}
    removed = removed_digest(chosen)
    return settings | ({removals.REASON: removed} if removed else {})


def removed_digest(chosen: selection.Selection) -> str | None:
    """Digest of the ids that the removal list removes from a dataset; None when it removes no document."""
    return hashlib.sha256("\n".join(chosen.removed).encode()).hexdigest() if chosen.removed else None


def _keep_finished(stage: StageRun) -> dict[str, Receipt]:
    """The receipts of finished partitions, by name; all files of which they do not tell are deleted."""
    kept = {name: receipt for name, receipt in stage.finished_pieces().items() if "books" in receipt.counts}
    told = {stage.folder / name for each in kept.values() for name in (each.name, *(out.path for out in each.outputs))}
    with disk_errors(stage.folder):
        for path in stage.folder.rglob("*"):
            if path.is_file() and path not in told:
                path.unlink()
    if kept:
        stage.progress.say(f"{stage.workspace.relative(stage.folder)}: {len(kept)} finished partitions are kept")
    return kept


def _pack_all(
    stage: StageRun, made: Generator[Packed, None, None], kept: dict[str, Receipt], partitions: int
) -> list[str]:
    """Add the receipts of the missing partitions; returns the engines that encoded them."""
    engines = set[str]()
    try:
        with stage.progress.bar(f"{stage.dataset}: rankings", partitions, "partitions"):
            stage.progress.advance(len(kept))
            for packed in made:
                kept[packed.receipt.piece] = stage.take(packed.receipt)
                if packed.warning and packed.engine not in engines:
                    stage.progress.say(packed.warning)
                engines.add(packed.engine)
                stage.progress.advance(1)
    finally:
        made.close()  # ends workers that still pack a partition
        remove_leftovers(stage.folder)
    return sorted(engines)


def _splits(packed: Sequence[Receipt]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for split in SPLITS:
        for each in packed:
            if split in each.counts["splits"]:
                found.setdefault(split, Counter()).update(each.counts["splits"][split])
    return {split: dict(counts) for split, counts in found.items()}


def _counts(books: Counter[str], packed: Sequence[Receipt], splits: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    left_out = sum(
        (Counter(each.counts["left_out"]) for each in packed),
        Counter({name: books[name] for name in books.keys() - {"documents", "read"}}),
    )
    pairs = sum((Counter(each.counts["pairs_left_out"]) for each in packed), Counter[str]())
    return {
        "answers": {
            "read": books["read"], "used": sum(counts["answers"] for counts in splits.values()),
            "left_out": dict(sorted(left_out.items())),
        },
        "pairs": {
            "used": sum(counts["pairs"] for counts in splits.values()), "left_out": dict(sorted(pairs.items())),
        },
        "moved_documents": sum(each.counts["moved"] for each in packed),
    }  # fmt: skip


def _shown(books: Counter[str], packed: Sequence[Receipt]) -> str:
    counts = _counts(books, packed, {})
    reasons = counts["answers"]["left_out"] | counts["pairs"]["left_out"]
    return ", ".join(f"{name} {count:,}" for name, count in reasons.items()) or "there are no answers"


def _check_books(
    workspace: Workspace, name: str, counts: Mapping[str, Any], read: int, chosen: selection.Selection
) -> None:
    """Raise BooksError unless every answer is used or left out for a reason, and no document was passed over."""
    answers, used = counts["answers"], counts["answers"]["used"]
    out = sum(answers["left_out"].values())
    if answers["read"] != used + out:
        raise BooksError(f"{name}: {answers['read']:,} answers are not {used:,} used and {out:,} left out")
    ledger = read_ledger(workspace.documents(name))
    documents = sum(ledger.counts["splits"].values()) if ledger else 0
    rest = documents - chosen.documents.total()
    if read != rest:
        raise BooksError(f"{name}: {read:,} documents were read of {rest:,}")


def _describe(
    folder: Path, packed: Sequence[Receipt], splits: Iterable[str], vocab_size: int, name: str, identity: str
) -> list[Path]:
    """Write what `datasets` reads beside the shards; returns the files."""
    shards = sorted(output.path for each in packed for output in each.outputs)
    files = {"dataset_dict.json": json.dumps({"splits": list(splits)}).encode()}
    for split in splits:
        own = [Path(file).name for file in shards if file.startswith(f"{split}/")]
        files[f"{split}/dataset_info.json"] = describe_rankings(vocab_size, name=f"{name}, {split}")
        files[f"{split}/state.json"] = describe_state(own, split=split, fingerprint=identity)
    return write_files(folder, files)


def _notes(name: str, counts: Mapping[str, Any], removed: int) -> tuple[str, ...]:
    notes = []
    if removed:
        notes.append(f"{name}: {removals.LIST} keeps out {removed:,} documents")
    if moved := counts["moved_documents"]:
        notes.append(f"{name}: {moved:,} documents went to the split in which their question is held out")
    lacking = [split for split in ("validation",) if split not in counts["splits"]]
    if lacking:
        notes.append(f"{name}: no question is in {lacking[0]}: state a larger validation_share in its manifest")
    return tuple(notes)
