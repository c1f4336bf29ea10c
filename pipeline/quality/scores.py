"""Scores of documents on disk: one file in `quality/scores/<dataset>/` for each documents shard.

In: documents shards and a trained model. Out: `part-NNNNN.parquet`, a row for each document that `dedup` and
`decontaminate` leave in, with its score and its draw; and a receipt for each.
Invariants: a file carries the fingerprint of model, shard and what is left out, so a rerun keeps current files.
Cost: 70 MB of documents a second and worker; one row group in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus.pipeline import pieces
from corpus.pipeline.quality import model_file
from corpus.pipeline.quality.sample import ScoredShard
from corpus.pipeline.quality.scoring import draws_of, keys_of, scores_of
from corpus.pipeline.storage.document_shards import (
    document_ref,
    part_metadata,
    part_name,
    part_number,
    read_part,
    reading_part,
    row_groups,
    split_ref,
)
from corpus.pipeline.storage.row_shards import with_metadata
from corpus.pipeline.storage.selection import load, select
from corpus.pipeline.workspace.checked import checked
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import fingerprint
from corpus.pipeline.workspace.receipts import PieceWriter, Receipt
from corpus.pipeline.workspace.share import ShareReport
from corpus.pipeline.workspace.stage import StageRun

SCHEMA = pa.schema(
    [
        pa.field("document", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("characters", pa.int32(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("draw", pa.float64(), nullable=False),
    ]
)
"""Scores in order of documents. A document stays where `draw < (2 - score) ** -alpha`."""


def work_of(stage: StageRun, digest: str) -> str:
    """The fingerprint of the scoring of all shards with a model."""
    return fingerprint("quality scores", stage.version, {"stage": stage.fingerprint, "model": digest}, [])


def write_scores(
    stage: StageRun, shards: Sequence[ScoredShard], folder: Path, model: Path, digest: str, workers: int
) -> None:
    """Write the missing scores, and delete those of shards that are not scored."""
    wanted = {shard.scores for shard in shards}
    for path in folder.rglob("*.parquet"):
        if path not in wanted:
            path.unlink()
    named = _named(shards)
    told = stage.finished_pieces(work_of(stage, digest))
    missing = {
        name: shard
        for name, shard in named.items()
        if name not in told and not _is_current(shard, digest, stage.version)
    }
    if len(missing) < len(shards):
        stage.progress.say(f"quality: the scores of {len(shards) - len(missing)} of {len(shards)} shards are kept")
    made = pieces.make(stage, missing, {}, _scoring(stage, model, digest), workers=workers)
    with stage.progress.bar("quality: scores", sum(shard.count for shard in missing.values()), "documents"):
        for shard, _ in zip(missing.values(), made, strict=True):
            stage.progress.advance(shard.count)


def write_share(stage: StageRun, shards: Sequence[ScoredShard], model: Path, digest: str, workers: int) -> ShareReport:
    """Write the scores of the stage's share of the shards."""
    return pieces.make_share(
        stage, _named(shards), pieces.run_all(_scoring(stage, model, digest), workers),
        identity=work_of(stage, digest), adopt=partial(_receipt_of, stage=stage, digest=digest),
    )  # fmt: skip


def _named(shards: Sequence[ScoredShard]) -> Mapping[str, ScoredShard]:
    return {shard.piece: shard for shard in shards}


def _scoring(stage: StageRun, model: Path, digest: str) -> Callable[[ScoredShard], Receipt]:
    """What scores a shard, in a worker."""
    work = work_of(stage, digest)
    return partial(score_shard, folder=stage.folder, model=model, digest=digest, version=stage.version, work=work)


def score_shard(shard: ScoredShard, *, folder: Path, model: Path, digest: str, version: int, work: str) -> Receipt:
    """Score the documents of a shard; runs in a worker. Raises DamageError if it cannot be read."""
    weights = model_file.read_once(model, digest)
    schema = with_metadata(SCHEMA.empty_table(), _identity(shard, digest, version), {}).schema
    out = shard.left_out.shard(part_number(shard.path))
    files = PieceWriter(folder, work, shard.piece)
    with (
        files.output(shard.scores.relative_to(folder).as_posix()) as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for number, line, whole in read_part(shard.path, ["id", "text", "split"]):
            lines, batch = select(whole, line, out)
            ids = batch["id"].to_pylist()
            columns = {
                "document": document_ref(number, lines),
                "id": ids,
                "split": batch["split"],
                "characters": pc.utf8_length(whole["text"]).take(pa.array(lines - line)),
                "score": scores_of(batch["text"].to_pylist(), weights),
                "draw": draws_of(keys_of(shard.dataset, ids)),
            }
            writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=schema))
            file.groups.append(len(ids))
    return files.finish({"documents": sum(file.groups)})


def _identity(shard: ScoredShard, digest: str, version: int) -> str:
    return fingerprint("quality scores", version, {"model": digest, "shard": shard.digest}, [])


def _is_current(shard: ScoredShard, digest: str, version: int) -> bool:
    metadata = part_metadata(shard.scores)
    return metadata is not None and metadata[0] == _identity(shard, digest, version)


def _receipt_of(piece: str, shard: ScoredShard, *, stage: StageRun, digest: str) -> Receipt | None:
    """The receipt of a shard that an earlier run has scored; None where its scores are not current."""
    if not _is_current(shard, digest, stage.version):
        return None
    groups = row_groups(shard.scores)
    output = stage.output_of(shard.scores, groups)
    return Receipt(work=work_of(stage, digest), piece=piece, outputs=(output,), counts={"documents": sum(groups)})


def score_at(workspace: Workspace, dataset: str, document: int) -> tuple[float, bool] | None:
    """The score of a document, and whether it is left out; None where it was not scored.

    Raises:
        WorkspaceError: the scores are of other documents than there are now.
        DamageError: the scores or the list are not what their ledger says.

    """
    shard, line = split_ref(document)
    path = workspace.quality / "scores" / dataset / part_name(shard)
    lists = load(workspace, dataset, areas=("quality",))
    if not lists.inputs or not path.is_file():
        return None
    with reading_part(checked(workspace, path)):
        found = pq.read_table(path, columns=["score"], filters=[("document", "=", document)])["score"].to_pylist()
    return (found[0], line in lists.shard(shard).lines) if found else None


def read_scores(path: Path) -> dict[str, np.ndarray]:
    """The columns of a file of scores but the ids. Raises DamageError if it cannot be read."""
    with reading_part(path):
        table = pq.read_table(path, columns=[name for name in SCHEMA.names if name != "id"])
    return {name: table[name].to_numpy() for name in table.column_names}
