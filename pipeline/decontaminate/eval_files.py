"""Read evaluation files: the texts of numbered items.

In: JSON Lines, JSON, CSV, TSV, Parquet or plain text, each also compressed as `.gz`, `.xz` or `.zst`.
Out: every string of every item, at any depth, with the name of its field.
Invariants: as `read.items`, which opens the file; one without any text to search for is refused.
Cost: the decompressed file and its items in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus.pipeline.decontaminate.ngram_index import Owner, can_be_found
from corpus.pipeline.errors import SourceError
from corpus.pipeline.read.items import ItemFile, is_among, items_of, strings


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The items of an evaluation file."""

    file: str
    items: int
    fields: tuple[str, ...]
    """Names of all fields with text, in order of appearance."""
    texts: Sequence[tuple[Owner, str]]
    """The texts of the requested fields."""


def read(path: Path, fields: Sequence[str] = (), *, or_all: bool = False) -> Evaluation:
    """The items of an evaluation file.

    Args:
        path: the file; its ending says its format.
        fields: dotted names of the requested fields, such as `question` or `paragraphs.context`; each includes the
            fields below it. All when empty.
        or_all: whether a file without any requested field gives all its fields instead of a SourceError.

    Raises:
        SourceError: the file is missing, damaged, not what its ending says, or has no text to search for.

    """
    items = 0
    found: dict[str, None] = {}
    texts: list[tuple[Owner, str]] = []
    for number, item in items_of(ItemFile(path, name=path.name)):
        items += 1
        for field, text in strings(item):
            found[field] = None
            if not fields or is_among(field, fields):
                texts.append((Owner(path.name, number, field), text))
    if or_all and found and not texts:
        return read(path)
    why = ""
    if not items:
        why = "it has no items"
    elif not found:
        why = "its items have no text"
    elif not texts:
        why = f"no item has a requested field; they have {', '.join(found)}"
    elif not any(can_be_found(text) for _, text in texts):
        why = "all texts of its items are shorter than 8 Chinese characters or 32 letters"
    if why:
        raise SourceError(f"{path} has no text to search for: {why}")
    return Evaluation(path.name, items, tuple(found), texts)


def read_all(folder: Path, fields: Sequence[str] = ()) -> list[Evaluation]:
    """The evaluation files of a folder, by name; one without any of the fields gives all of its own.

    Raises:
        SourceError: as `read`, or a field is in no file.

    """
    found = [read(path, fields, or_all=True) for path in list_files(folder)]
    names = sorted({name for evaluation in found for name in evaluation.fields})
    for wanted in fields if found else ():
        if not any(is_among(name, [wanted]) for name in names):
            raise SourceError(f"no evaluation file has the field {wanted}; they have {', '.join(names)}")
    return found


def list_files(folder: Path) -> list[Path]:
    """The evaluation files of a folder, by name."""
    return sorted(path for path in folder.glob("[!.]*") if path.is_file())
