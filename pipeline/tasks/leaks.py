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
from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage import selection
from corpus.pipeline.storage.document_shards import parts
from corpus.pipeline.tasks.schema import Item
from corpus.pipeline.text.normalize import fold
from corpus.pipeline.workspace.layout import OUTSIDE, OUTSIDE_REWARD, Workspace
from corpus.pipeline.workspace.ledger import LEDGER, Ledger, read_ledger

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


def find(
    items: Sequence[Item], train: Sequence[Item], model: Path, workspace: Workspace, progress: Progress = SILENT
) -> tuple[dict[str, Sequence[str]], str]:
    """Ids of items by where they stand too, and why documents were not searched; empty where nothing hindered it."""
    found: dict[str, Sequence[str]] = {}
    if train:
        found["train"] = list(within(train, items))
    names, unknown = datasets_of(model, workspace)
    if names:
        try:
            hits = in_documents(workspace, names, items, progress)
        except WorkspaceError as error:
            return found, error.message
        found[f"documents of {', '.join(names)}"] = list(hits)
    return found, unknown


def datasets_of(model: Path, workspace: Workspace) -> tuple[list[str], str]:
    """Datasets whose documents a model was trained on, and why they are not all known; empty where they are.

    They are those that the ledger of the run names, and the ledgers of the runs that it started from. A run is found by
    the digest of its weights, not by its name.
    """
    folder = model.resolve()
    folder = folder.parent if folder.name == "best" or folder.name.startswith("checkpoint-") else folder
    ledgers = {path.parent: read_ledger(path.parent) for path in sorted(workspace.models.glob(f"*/{LEDGER}"))}
    names: set[str] = set()
    ledger = read_ledger(folder)
    if ledger is None:
        return [], f"{folder} has no ledger, so it is not known what it was trained on"
    while ledger is not None:
        paths = [PurePosixPath(entry.path).parts for entry in ledger.inputs]
        names.update(path[1] for path in paths if len(path) > 2 and path[0] in _AREAS)
        begun = {entry.sha256 for entry in ledger.inputs if _is_weights(entry.path)}
        if not begun:
            return sorted(names), ""
        before = next((run for run, its in ledgers.items() if _holds(its, begun)), None)
        ledger = (
            ledgers.pop(before) if before else None
        )  # each run once: one that changed no weight begins with its own
    return sorted(names), "the run that it started from is not in this workspace"


def texts_of(item: Item) -> tuple[str, ...]:
    """The texts of an item that are searched for: all but options; of a minimal pair the good sentence."""
    return tuple(text for text in item.texts if text) or item.options[:1]


def _is_weights(path: str) -> bool:
    return path.startswith(OUTSIDE) and path.endswith(".safetensors") and not path.startswith(OUTSIDE_REWARD)


def _holds(ledger: Ledger | None, digests: set[str]) -> bool:
    return ledger is not None and digests <= {entry.sha256 for entry in ledger.outputs}


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
