"""Batches: the files of a user's dataset in the order in which they came, so that new files leave old shards alone.

In: the ledger of `raw/<dataset>/`, whose `arrivals` list the files of each download, and the files of records. Out: the
files of each batch.
Invariants: a batch begins with a new shard. The shards of a batch carry a fingerprint of its own files and of the
number of its first shard, so files that come later change none of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corpus.pipeline.documents.counts import Counts
from corpus.pipeline.read.spans import RecordFile
from corpus.pipeline.workspace.ledger import FileDigest, Ledger, fingerprint


@dataclass(frozen=True, slots=True)
class Batch:
    """The files that one download brought."""

    files: Sequence[RecordFile]
    inputs: Sequence[FileDigest]
    """The files in `raw/` that hold them."""

    def identity(self, stage: str, version: int, settings: Mapping[str, Any], first: int) -> str:
        """The fingerprint of its shards, which begin at number `first`."""
        return fingerprint(stage, version, {**settings, "first_shard": first}, self.inputs)


def batches(raw: Ledger | None, files: Sequence[RecordFile], inputs: Sequence[FileDigest]) -> list[Batch]:
    """The batches of a dataset in order; empty for one whose files do not come one after another."""
    arrivals: Sequence[Sequence[str]] = raw.counts.get("arrivals", ()) if raw else ()
    found = []
    for arrived in arrivals:
        names = set(arrived)
        own = [file for file in files if file.container in names]
        found.append(Batch(own, [each for each in inputs if name_below_raw(each) in names]))
    return [batch for batch in found if batch.files]


def whole(
    before: Ledger | None, identity: str, first: int, kept: Mapping[int, Counts]
) -> Iterator[tuple[int, int, Counts]] | None:
    """Number, 0 and counts of the shards of a batch that was finished, without reading its files; else None."""
    received = before.counts.get("batches", ()) if before else ()
    shards = next((each["shards"] for each in received if each["fingerprint"] == identity), None)
    if shards is None or any(number not in kept for number in range(first, first + shards)):
        return None
    return ((number, 0, kept[number]) for number in range(first, first + shards))


def entry(batch: Batch, identity: str, shards: int, counts: Counts) -> dict[str, Any]:
    """What the ledger says of a batch."""
    return {
        "files": [name_below_raw(each) for each in batch.inputs],
        "shards": shards,
        "records": counts.records,
        "documents": counts.documents.total(),
        "fingerprint": identity,
    }


def name_below_raw(entry: FileDigest) -> str:
    """The name in `raw/<dataset>/` of an input."""
    return entry.path.split("/", 2)[2]
