"""The removal list: documents that must not be used, whatever the rules say.

In: files of document ids, one a line.
Out: `exclude.txt` of the workspace, which every later `corpus pack` honours. Deleting a line undoes its removal.
Invariants: the file has each id once, and the order of removals does not matter. It is sorted; once a person has put a
comment or a blank line into it, its lines stay and new ids join at the end. An id that names no document stays on the
list, for documents that are ingested later.
Cost: the ids are in memory. Finding them reads the ids of a dataset once.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from corpus.pipeline.errors import SourceError
from corpus.pipeline.manifest import DATASETS
from corpus.pipeline.workspace.files import write_atomic
from corpus.pipeline.workspace.layout import Workspace

LIST = "exclude.txt"
REASON = "excluded"


def read(path: Path) -> list[str]:
    """The ids of a file: one a line, `DATASET:ID` (unambiguous) or `ID`. Blank lines and those that begin with `#` are
    skipped.

    Raises:
        SourceError: the file cannot be read.

    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise SourceError(f"{path} is not there", hint="Give a file of document ids with --exclude.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read: {error}", hint="It must be text in UTF-8, one id a line.") from error
    lines = [line.strip() for line in text.split("\n")]
    return [line for line in lines if line and not line.startswith("#")]


def listed(workspace: Workspace) -> list[str]:
    """The ids on the workspace's list; empty without a list."""
    path = workspace.root / LIST
    return read(path) if path.exists() else []


def add(workspace: Workspace, files: Iterable[Path]) -> list[str]:
    """Add the ids of files to the workspace's list and return them as given. The caller holds the workspace's lock."""
    new = [name for path in files for name in read(path)]
    before, path = listed(workspace), workspace.root / LIST
    missing = sorted({*new} - {*before})
    if missing:
        there = path.read_text(encoding="utf-8-sig").splitlines() if path.exists() else []
        is_plain = len(there) == len(before)
        lines = sorted({*before, *new}) if is_plain else [*there, *missing]
        write_atomic(path, "".join(f"{line}\n" for line in lines).encode())
    return new


def of_dataset(names: Iterable[str], dataset: str) -> set[str]:
    """The ids among `names` that may belong to a dataset, without its name.

    >>> sorted(of_dataset(["baike2018qa:q1", "news2016zh:n1", "7@AA/wiki_00:9"], "baike2018qa"))
    ['7@AA/wiki_00:9', 'q1']
    """
    found = set()
    for name in names:
        owner, colon, rest = name.partition(":")
        if colon and owner in DATASETS:
            if owner == dataset:
                found.add(rest.strip())
        else:
            found.add(name)
    return found
