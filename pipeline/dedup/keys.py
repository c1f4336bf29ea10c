"""The signatures that dedup compares: those of documents that ingest has not signed, or that are not current.

In: documents shards. Out: `dedup/keys/`, `dedup/bands/`, and a receipt for each shard that was signed here.
Invariants: signatures depend on their documents shard and the threshold alone, so runs with other settings keep them.
Cost: see `signatures.files`; of a shard with a receipt nothing is opened, of another the keys are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from corpus.pipeline import pieces
from corpus.pipeline.signatures import files as signatures
from corpus.pipeline.signatures.files import SignatureShard, Signing
from corpus.pipeline.storage.document_shards import document_count, parts, row_groups
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import FileDigest, Ledger
from corpus.pipeline.workspace.receipts import Receipt
from corpus.pipeline.workspace.share import ShareReport
from corpus.pipeline.workspace.stage import StageRun


def shards_of(workspace: Workspace, ledgers: Mapping[str, Ledger], threshold: float) -> list[SignatureShard]:
    """The documents shards that the ledgers name, with the fingerprints of their keys."""
    first, shards = 0, []
    for name, ledger in ledgers.items():
        known = {output.path: output for output in ledger.outputs}
        for path in parts(workspace.documents(name)):
            if path.name not in known:
                continue
            source = FileDigest(workspace.relative(path), known[path.name].bytes, known[path.name].sha256)
            identity = signatures.identity(source, threshold)
            made, count = Signing(workspace.dedup, name).places(path.name), document_count(path)
            shards.append(SignatureShard(name, path, *made, identity, first, count))
            first += count
    return shards


def make(
    stage: StageRun, shards: Sequence[SignatureShard], threshold: float, workers: int, *, thorough: bool = False
) -> None:
    """Sign the shards that lack it, with `thorough` also where bands are damaged; delete signatures of no shard."""
    told = {} if thorough else stage.finished_pieces()
    missing = {
        shard.piece: shard
        for shard in shards
        if shard.piece not in told and not signatures.is_current(shard, thorough=thorough)
    }
    if len(missing) < len(shards):
        stage.progress.say(f"dedup: the keys of {len(shards) - len(missing)} of {len(shards)} shards are kept")
    wanted = {path for shard in shards for path in (shard.keys, shard.bands)}
    for name in {shard.dataset for shard in shards}:  # keys of other datasets stay
        for path in (path for area in signatures.AREAS for path in parts(stage.folder / area / name)):
            if path not in wanted:
                path.unlink()
    made = pieces.make(stage, missing, {}, _signing(stage, threshold), workers=workers)
    with stage.progress.bar("dedup: keys", sum(shard.count for shard in missing.values()), "documents"):
        for shard, _ in zip(missing.values(), made, strict=True):
            stage.progress.advance(shard.count)


def make_share(stage: StageRun, shards: Sequence[SignatureShard], threshold: float, workers: int) -> ShareReport:
    """Sign those of the stage's share of the shards that lack it."""
    named = {shard.piece: shard for shard in shards}
    work = pieces.run_all(_signing(stage, threshold), workers)
    return pieces.make_share(stage, named, work, adopt=partial(_receipt_of, stage=stage))


def _signing(stage: StageRun, threshold: float) -> partial[Receipt]:
    """What signs a shard, in a worker."""
    return partial(signatures.write_signatures, threshold=threshold, folder=stage.folder, work=stage.fingerprint)


def _receipt_of(piece: str, shard: SignatureShard, *, stage: StageRun) -> Receipt | None:
    """The receipt of a shard that ingest or an earlier run has signed; None where its signatures are not current."""
    if not signatures.is_current(shard, thorough=True):
        return None
    outputs = tuple(stage.output_of(path, row_groups(path)) for path in sorted((shard.bands, shard.keys)))
    return Receipt(work=stage.fingerprint, piece=piece, outputs=outputs, counts={"documents": shard.count})
