"""What the runs that documents share leave out of the rows: rows of `REMOVED_SCHEMA` for each documents shard.

In: the runs that `dedup.spans` found, and documents shards.
Out: the stretches that are cut out of later documents; a document of which less would remain than the shortest document
of its dataset has is left out whole.
Invariants: what is cut out of a document stands in an earlier one, where it stays unless runs of a still earlier one
cover it, or so little remained of the document that it is left out whole. A document with a prompt, a conversation and
a ranking stay as they are: their parts are known by where they begin.
Cost: 40 bytes for each stretch; the rows of one shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus.pipeline.dedup import places, span_texts
from corpus.pipeline.dedup.places import Runs
from corpus.pipeline.dedup.span_lists import Owners
from corpus.pipeline.signatures.files import KEEP_FIRST, SignatureShard, SignatureStore, ids_of, range_slice
from corpus.pipeline.storage.document_shards import REMOVED_SCHEMA, document_ref, has_turns, part_number, reading_part

REASON = "shared_span"
COUNTS = ("cut", "characters_cut", "left_out", "characters_left_out")
"""Documents that are cut and the characters cut out of them, documents left out whole and their characters."""


class SpanCuts:
    """What is cut out of documents."""

    def __init__(self, runs: Runs, owners: Owners, store: SignatureStore, least: Mapping[str, int]) -> None:
        """`least` has the characters of the shortest document of each dataset."""
        self._runs, self._owners, self._least = runs, owners, least
        self._documents, self._begins, self._ends = span_texts.stretches(runs)
        self._shared = np.unique(self._documents)
        self._characters = store.take("characters", self._shared).astype(np.int64)
        self._splits = store.take("split", self._shared)
        self.counts = {name: {key: Counter[str]() for key in COUNTS} for name in least}
        """The rows that were taken, by dataset, what is counted, and split."""

    def rows(self, shard: SignatureShard) -> pa.Table:
        """The rows of a shard, in order of document and start."""
        own = range_slice(self._documents, shard.first, shard.count)
        if own.start == own.stop or has_turns(shard.path):
            return REMOVED_SCHEMA.empty_table()
        here = range_slice(self._shared, shard.first, shard.count)
        single, lengths, splits = self._shared[here], self._characters[here], self._splits[here]
        of = np.searchsorted(single, self._documents[own])
        begins, ends = self._begins[own], self._ends[own]
        left = lengths - np.bincount(of, weights=ends - begins).astype(np.int64)
        whole = left < max(1, self._least[shard.dataset])
        with reading_part(shard.path), pq.ParquetFile(shard.path) as file:
            prompts = file.read(columns=["prompt_length"])["prompt_length"].to_numpy()[single - shard.first]
        opens = np.diff(of, prepend=-1) > 0
        chosen = (prompts == 0)[of] & (~whole[of] | opens)
        of, opens, begins, ends = (column[chosen] for column in (of, opens, begins, ends))
        details = self._details(shard, of, begins)
        begins, ends = np.where(whole[of], 0, begins), np.where(whole[of], lengths[of], ends)
        self._count(shard.dataset, splits[of], whole[of], opens, ends - begins)
        columns = [
            document_ref(part_number(shard.path), single[of] - shard.first),
            ids_of(shard, single).take(pa.array(of)),
            np.array(KEEP_FIRST)[splits[of]],
            pa.array([REASON] * len(of), pa.string()),
            details,
            begins,
            ends,
            whole[of],
        ]
        return pa.table(columns, names=REMOVED_SCHEMA.names).cast(REMOVED_SCHEMA)

    def _details(self, shard: SignatureShard, of: np.ndarray, begins: np.ndarray) -> pa.Array:
        """[stretches] where the characters that a stretch begins with stand first: dataset, id and position."""
        numbers = places.documents_of(self._runs.places)
        runs = self._runs.take(range_slice(numbers, shard.first, shard.count))
        listed = [places.documents_of(runs.places), places.positions_of(runs.places)]
        _, listed[0] = np.unique(listed[0], return_inverse=True)
        keys, wanted = (pair[0] << 32 | pair[1] for pair in (listed, (of, begins)))
        firsts = runs.firsts[np.searchsorted(keys, wanted)]
        owners = self._owners.rows(places.documents_of(firsts))
        names = pc.binary_join_element_wise(owners["dataset"], owners["id"], ":")
        return pc.binary_join_element_wise(names, pc.cast(pa.array(places.positions_of(firsts)), pa.string()), " ")

    def _count(self, dataset: str, splits: np.ndarray, whole: np.ndarray, opens: np.ndarray, sizes: np.ndarray) -> None:
        """Count rows: of each its split, whether it is a whole document, the first row of one, and its characters."""
        for which, documents, characters in ((~whole, *COUNTS[:2]), (whole, *COUNTS[2:])):
            for number, split in enumerate(KEEP_FIRST):
                own = which & (splits == number)
                if own.any():
                    self.counts[dataset][documents][split] += int(np.count_nonzero(own & opens))
                    self.counts[dataset][characters][split] += int(sizes[own].sum())
