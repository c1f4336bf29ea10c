"""What the report shows of texts: a seeded sample.

In: a workspace.
Out: lengths and characters of random documents, random documents with what was done to them, random rows with their
segments, and the tokenizer's vocabulary.
Invariant: the same seed gives the same sample of the same workspace.
Cost: a few row groups a dataset, whatever its size.
"""

from __future__ import annotations

import json
import random
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from corpus.pipeline.clean.pii_recognizers import PLACEHOLDERS
from corpus.pipeline.errors import SourceError, WorkspaceError
from corpus.pipeline.inspect import examples
from corpus.pipeline.storage import selection
from corpus.pipeline.storage.document_shards import document_ref, part_number, parts, read_part, reading_part
from corpus.pipeline.workspace.checked import checked
from corpus.pipeline.workspace.layout import Workspace

_GROUPS = 4
_COUNTED, _COUNTED_CHARACTERS = 2_000, 400_000
"""Most documents, and characters of them, that are tokenized and counted."""
_FREQUENT = 30
_SHOWN_OF_EACH = 6
_CHANGED = 60
"""Documents shown for each reason, and changed ones looked at for them."""
_ROWS = 4
_SEGMENT_CHARACTERS = 60
_DECILE_CHARACTERS = 200
"""Shown of a document at a decile of the score."""
_LARGEST_VOCABULARY = 100_000
"""Most entries of a vocabulary that the page holds: some 3 MB."""
CLASSES = ("Han", "Latin", "other_letters", "digits", "punctuation", "symbols", "blanks", "other")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextStatistics:
    """Lengths and characters of random documents of a dataset."""

    documents: int
    """Documents in the sample."""
    counted: int
    """Of these, the documents whose characters and tokens were counted."""
    characters: np.ndarray
    """[documents] int64: lengths in characters."""
    tokens: np.ndarray
    """[counted] int64: lengths in tokens; empty without a tokenizer."""
    classes: dict[str, int]
    """Characters of the counted documents by class."""
    frequent: list[tuple[str, int]]
    """The most frequent Han characters of the counted documents."""


NOTHING = TextStatistics(
    documents=0, counted=0, characters=np.zeros(0, np.int64), tokens=np.zeros(0, np.int64), classes={}, frequent=[]
)
"""Of a dataset that cannot be read."""


def measure(workspace: Workspace, dataset: str, tokenizer: Tokenizer | None, seed: int) -> TextStatistics:
    """Lengths and characters of random documents that are used.

    Raises:
        DamageError: a documents shard cannot be read.

    """
    random_ = random.Random(f"{seed} {dataset}")  # noqa: S311  # a choice of examples
    texts = list(_texts(workspace, dataset, random_))
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    random_.shuffle(texts)
    within = np.cumsum([len(text) for text in texts[:_COUNTED]]) <= _COUNTED_CHARACTERS
    chosen = [text[:_COUNTED_CHARACTERS] for text in texts[: max(int(np.count_nonzero(within)), 1)]]
    encoded = tokenizer.encode_batch_fast(chosen, add_special_tokens=False) if tokenizer and chosen else []
    counts = Counter("".join(chosen))
    classes: Counter[str] = Counter()
    for character, count in counts.items():
        classes[class_of(character)] += count
    letters = [(character, count) for character, count in counts.most_common() if class_of(character) == "Han"]
    return TextStatistics(
        documents=len(texts), counted=len(chosen), characters=lengths,
        tokens=np.array([len(each) for each in encoded], dtype=np.int64),
        classes={name: classes[name] for name in CLASSES if classes[name]}, frequent=letters[:_FREQUENT],
    )  # fmt: skip


def class_of(character: str) -> str:
    """The class of a character, by Unicode's name and category.

    >>> [class_of(character) for character in "水aé7。+ "]
    ['Han', 'Latin', 'Latin', 'digits', 'punctuation', 'symbols', 'blanks']
    """
    if character.isspace():
        return "blanks"
    name, category = unicodedata.name(character, ""), unicodedata.category(character)
    if name.startswith(("CJK UNIFIED", "CJK COMPATIBILITY IDEOGRAPH")) or character == "〇":
        return "Han"
    if category[0] == "L":
        return "Latin" if name.startswith(("LATIN", "FULLWIDTH LATIN")) else "other_letters"
    return {"N": "digits", "P": "punctuation", "S": "symbols"}.get(category[0], "other")


def documents(workspace: Workspace, dataset: str, seed: int) -> Iterator[examples.Example]:
    """A few kept documents, and a few for each reason for which one was changed, dropped or left out.

    Where the archives are gone no changed document is shown, and dropped records are shown as they came.
    """
    yield from _shown(workspace, dataset, "kept", "", _SHOWN_OF_EACH, seed)
    reasons = examples.reasons(workspace, dataset)
    shown = Counter[str]()
    for document in _shown(workspace, dataset, "changed", "", _CHANGED, seed):
        rules = document.why.split(", ")
        if any(shown[rule] < _SHOWN_OF_EACH for rule in rules):
            shown.update(rules)
            yield document
    for kind in sorted(PLACEHOLDERS.keys() & reasons["changed"]):  # rare, so found by its placeholder
        yield from _shown(workspace, dataset, "changed", kind, _SHOWN_OF_EACH, seed)
    for state in ("dropped", "left-out"):
        for reason in reasons[state]:
            yield from _shown(workspace, dataset, state, reason, _SHOWN_OF_EACH, seed)


def _shown(
    workspace: Workspace, dataset: str, state: str, reason: str, limit: int, seed: int
) -> list[examples.Example]:
    wanted = {"state": state, "reason": reason}
    try:
        return list(examples.sample(workspace, [dataset], **wanted, limit=limit, seed=seed, thorough=False))
    except (SourceError, WorkspaceError):
        return []


def _texts(workspace: Workspace, dataset: str, random_: random.Random) -> Iterator[str]:
    """The texts of a few random row groups, without what the lists leave out."""
    chosen = selection.load(workspace, dataset, removals=True)
    paths = parts(workspace.documents(dataset))
    for path in sorted(random_.sample(paths, min(len(paths), _GROUPS))):
        with reading_part(checked(workspace, path)), pq.ParquetFile(path) as file:
            groups = file.num_row_groups
            if not groups:
                continue
            group = random_.randrange(groups)
            line = sum(file.metadata.row_group(before).num_rows for before in range(group))
            texts = file.read_row_group(group, columns=["text"])["text"]
        kept = chosen.shard(part_number(path)).kept(line, len(texts))
        yield from texts.take(pa.array(kept)).to_pylist()


def score_deciles(workspace: Workspace, dataset: str, seed: int) -> list[dict[str, Any]]:
    """Documents at the deciles of the score, of a random shard: score, id and the beginning of the text.

    Raises WorkspaceError if the scores are of other documents than there are now.
    """
    paths = parts(workspace.quality / "scores" / dataset)
    if not paths or selection.index_of(workspace, "quality", dataset) is None:
        return []
    random_ = random.Random(f"{seed} {dataset} scores")  # noqa: S311  # a choice of examples
    chosen = checked(workspace, random_.choice(paths))
    with reading_part(chosen):
        table = pq.read_table(chosen, columns=["document", "id", "score"])
    table = table.sort_by([("score", "ascending"), ("document", "ascending")])
    places = sorted({(2 * decile + 1) * table.num_rows // 20 for decile in range(10)} if table.num_rows else ())
    rows = table.take(pa.array(places, pa.int64())).to_pylist()
    texts = dict[int, str]()
    for number, line, batch in read_part(checked(workspace, workspace.documents(dataset) / chosen.name), ["text"]):
        for reference in (row["document"] - document_ref(number, line) for row in rows):
            if 0 <= reference < batch.num_rows:
                texts[reference + document_ref(number, line)] = batch["text"][reference].as_py()[:_DECILE_CHARACTERS]
    return [{**row, "text": texts[row["document"]]} for row in rows]


def packed_rows(workspace: Workspace, dataset: str, tokenizer: Tokenizer, seed: int, form: str) -> list[dict[str, Any]]:
    """Random rows of a dataset's train split, or of the first split that has any: split, number, slots, padding, and
    for each segment (first slot, slots, first token in the document, opening text).
    """
    folders = [workspace.packed(dataset, form) / split for split in ("train", "validation", "test")]
    files = next((found for folder in folders if (found := sorted(folder.glob("data-*.arrow")))), [])
    if not files:
        return []
    random_ = random.Random(f"{seed} {dataset} {form}")  # noqa: S311  # a choice of examples
    number = random_.randrange(len(files))
    chosen = checked(workspace, files[number])
    with reading_part(chosen), pa.memory_map(str(chosen)) as file, pa.ipc.open_stream(file) as reader:
        table = reader.read_all()  # mapped: only the rows taken are read
        lines = sorted(random_.sample(range(table.num_rows), min(_ROWS, table.num_rows)))
        rows = table.take(pa.array(lines, pa.int64())).to_pylist()
    before = 0
    for path in (checked(workspace, each) for each in files[:number]):
        with (
            reading_part(checked(workspace, path)),
            pa.memory_map(str(path)) as file,
            pa.ipc.open_stream(file) as reader,
        ):
            before += sum(batch.num_rows for batch in reader)
    split = files[number].parent.name
    return [_packed_row(row, split, before + line, tokenizer) for row, line in zip(rows, lines, strict=True)]


def _packed_row(row: dict[str, Any], split: str, number: int, tokenizer: Tokenizer) -> dict[str, Any]:
    ids, begin = row["input_ids"], 0
    segments = []
    for segment in row["segments"]:
        length = segment["length"]
        opening = tokenizer.decode(ids[begin : begin + min(length, _SEGMENT_CHARACTERS)], skip_special_tokens=False)
        segments.append((begin, length, segment["start"], opening[:_SEGMENT_CHARACTERS]))
        begin += length
    return {"split": split, "number": number, "segments": segments, "padding": len(ids) - begin, "slots": len(ids)}


def vocabulary(folder: Path) -> dict[str, Any] | None:
    """What a page needs to segment text as the tokenizer does; None where the vocabulary is too large for a page.

    `tokens` are the entries by id, in GPT-2's alphabet of one character a byte. `merges` are pairs of ids, best first,
    in one flat list. `special` are ids that no text encodes to.
    """
    model = json.loads((folder / "tokenizer.json").read_bytes())
    entries: dict[str, int] = model["model"]["vocab"]
    special = sorted(entry["id"] for entry in model["added_tokens"])
    if len(entries) > _LARGEST_VOCABULARY:
        return None
    tokens = [""] * (max([*entries.values(), *special]) + 1)
    for token, number in entries.items():
        tokens[number] = token
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["model"]["merges"]]
    merges = [entries[part] for pair in pairs for part in pair]
    return {"tokens": tokens, "merges": merges, "special": special}


def token_lengths(tokenizer: Tokenizer) -> Counter[int]:
    """Entries by their length in characters; 0 for parts of a character."""
    found: Counter[int] = Counter()
    for number in range(tokenizer.get_vocab_size()):
        text = tokenizer.decode([number], skip_special_tokens=False)
        found[0 if "\ufffd" in text else len(text)] += 1
    return found
