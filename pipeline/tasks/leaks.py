"""Leaks: test items that stand in train, or in the documents that a model was pre-trained on.

In: the items of a task; for the second, the documents of a workspace. Out: for each leaked item where it stands.
Invariants: texts are compared folded, as `corpus decontaminate` does: an item's text counts as found where half of it
stands in spans of at least 13 characters, or a long span of it; a short text only as a whole line. A test item stands
in train when at least half of each of its texts stands in one item of train. In documents one text suffices, and
phrases that more than ten of them contain do not count.
Cost: 36 bytes a character of the items in memory, and one row group of documents; some megabytes of documents a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from corpus.pipeline.decontaminate.matching import MIN_SHARE, Hit, PhraseFilter, find_hits
from corpus.pipeline.decontaminate.ngram_index import Index, Owner, build_index, can_be_found
from corpus.pipeline.errors import TaskError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage import selection
from corpus.pipeline.storage.document_shards import parts
from corpus.pipeline.tasks.schema import Item
from corpus.pipeline.text.normalize import fold
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger

_AREAS = ("packed", "chat")


def within(train: Sequence[Item], test: Sequence[Item]) -> Mapping[str, str]:
    """The test items that stand in train, with the id of the first item of train that holds each."""
    tests, trains = ([tuple(map(fold, texts_of(item))) for item in items] for items in (test, train))
    equal = dict[tuple[str, ...], str]()
    for item, folded in zip(train, trains, strict=True):
        equal.setdefault(folded, item.id)
    found = {item.id: equal[folded] for item, folded in zip(test, tests, strict=True) if folded in equal}
    index = _index(test)
    near = dict[tuple[int, int], set[int]]()  # (test item, item of train): its texts that were found
    for hit in find_hits(index, ["\n".join(texts_of(item)) for item in train]) if len(index.owners) else ():
        for owner in index.owners[hit.passage] if hit.share >= MIN_SHARE else ():
            near.setdefault((owner.item, hit.document), set()).add(int(owner.field))
    for (number, document), fields in sorted(near.items()):
        item = test[number]
        rest = (text for field, text in enumerate(tests[number]) if field not in fields)
        if item.id not in found and set(rest) <= {*trains[document]}:
            found[item.id] = train[document].id
    return {item.id: found[item.id] for item in test if item.id in found}


def in_documents(
    workspace: Workspace, datasets: Sequence[str], items: Sequence[Item], progress: Progress = SILENT
) -> Mapping[str, str]:
    """The items of which a text stands in documents used for training, with the first one as the removal list takes it.

    Args:
        workspace: the workspace that holds the documents.
        datasets: the datasets to look through, see `datasets_of`.
        items: the items; of minimal pairs the good sentence is searched for, of choices no option.
        progress: shows a bar.

    Raises:
        WorkspaceError: a dataset has no documents, or its lists were made from others.
        DamageError: a documents shard is not what its ledger says.

    """
    index = _index(items)
    ledgers = {name: selection.documents_of(workspace, name, progress) for name in datasets}
    phrases, hits = PhraseFilter(index), list[tuple[Hit, str]]()
    with progress.bar("leaks", sum(ledger.counts["documents"] for ledger in ledgers.values()), "documents"):
        for name in ledgers if len(index.owners) else ():
            for texts, ids in _documents(workspace, name, progress):
                found = ((hit, f"{name}:{ids[hit.document]}") for hit in find_hits(index, texts))
                hits += [(hit, document) for hit, document in found if phrases.add(hit)]
    where = dict[int, str]()
    for hit, document in hits:
        for owner in index.owners[hit.passage] if phrases.holds(hit) else ():
            where.setdefault(owner.item, document)
    return {items[number].id: where[number] for number in sorted(where)}


def datasets_of(run: Path) -> tuple[str, ...]:
    """The datasets whose rows a run was trained on, by its ledger.

    Raises:
        TaskError: the folder has no ledger, as models of others have none.

    """
    ledger = read_ledger(run)
    if ledger is None:
        raise TaskError(
            f"{run} has no ledger, so it is not known what it was trained on",
            hint="Only for runs of `corpus train` can documents be searched for test items.",
        )
    paths = [PurePosixPath(entry.path).parts for entry in ledger.inputs]
    return tuple(dict.fromkeys(path[1] for path in paths if len(path) > 2 and path[0] in _AREAS))


def texts_of(item: Item) -> tuple[str, ...]:
    """The texts of an item that are searched for: all but options; of a minimal pair the good sentence."""
    return tuple(text for text in item.texts if text) or item.options[:1]


def _index(items: Sequence[Item]) -> Index:
    return build_index(
        (Owner("", number, str(field)), text)
        for number, item in enumerate(items)
        for field, text in enumerate(texts_of(item))
        if can_be_found(text)
    )


def _documents(workspace: Workspace, name: str, progress: Progress) -> Iterator[tuple[list[str], list[str]]]:
    """Texts and ids of the documents that rows of training are made of, a batch at a time."""
    used = selection.load(workspace, name, removals=True)
    for path in parts(workspace.documents(name)):
        for _, _, batch in selection.read_selected(path, ["id", "text", "split"], used):
            of_train = [split == "train" for split in batch["split"].to_pylist()]
            texts, ids = (
                [value for value, mine in zip(batch[key].to_pylist(), of_train, strict=True) if mine]
                for key in ("text", "id")
            )
            progress.advance(batch.num_rows)
            yield texts, ids
