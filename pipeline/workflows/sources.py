"""Which datasets a call names, and which of them a source holds: built-in ones, and those of users' manifests.

In: names, manifests and a source as a caller gives them. Out: the downloads of these.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from corpus.pipeline.errors import CorpusError, SourceError
from corpus.pipeline.manifest import CORPORA, Manifest, parse_file
from corpus.pipeline.progress import Progress
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger

if TYPE_CHECKING:
    from corpus.pipeline.download.stage import DownloadConfig


def named(
    workspace: Workspace,
    datasets: Sequence[str],
    manifests: Sequence[Path],
    source: str | None,
    *,
    by_reference: bool = False,
) -> tuple[list[str], list[DownloadConfig]]:
    """The datasets that are named, and the downloads of these, or of the five corpora when none is."""
    from corpus.pipeline.download.stage import DownloadConfig

    added = [_checked(path, source).name for path in manifests]
    if twice := sorted(name for name in set(added) if added.count(name) > 1):
        raise ValueError(f"two of the manifests describe {twice[0]}")
    names, known = list(dict.fromkeys((*datasets, *added))), (*workspace.datasets(), *added)
    for name in names:
        if name not in known:
            raise ValueError(f"--dataset must be one of {', '.join(known)}, is {name!r}")
    configs = [DownloadConfig(dataset=name, source=source, by_reference=by_reference) for name in names or CORPORA]
    return names, configs


def _checked(path: Path, source: str | None) -> Manifest:
    """A user's manifest, with its rules checked; without `source` its files must be where it says."""
    from corpus.pipeline.documents.stage import check_rules

    manifest = parse_file(path)
    check_rules(manifest, str(path), path.read_text(encoding="utf-8"))
    if source is None and manifest.source and "://" not in manifest.source:
        place = path.parent / Path(manifest.source).expanduser()
        if not place.exists():
            raise SourceError(
                f"{path}: there is no {place}",
                hint="A relative `source` is relative to the manifest; --source overrides it.",
            )
    return manifest


@contextlib.contextmanager
def keep_manifests(
    workspace: Workspace, paths: Iterable[Path], names: Iterable[str], progress: Progress
) -> Iterator[None]:
    """Keep copies of manifests in the workspace; of a new dataset only once its files have come."""
    new = list[str]()
    for path in paths:
        manifest, what = workspace.add_manifest(path)
        new += [manifest.name] if what == "new" else []
        if what:
            progress.say(f"{manifest.name}: its manifest is {what}; a copy is kept in {workspace.manifests}")
    for name in names:
        if edited := workspace.edited_manifest(name):
            progress.say(f"{name}: {edited} has changed since it was given; --manifest {edited} takes the change")
    try:
        yield
    except CorpusError:
        for name in new:
            if read_ledger(workspace.raw(name)) is None:
                workspace.remove_manifest(name)
        raise


def found_at_source(
    workspace: Workspace, configs: Sequence[DownloadConfig], progress: Progress
) -> list[DownloadConfig]:
    """The downloads whose source holds the dataset. Mirrors are assumed to hold every dataset."""
    from corpus.pipeline.download import source as sources

    source = configs[0].source
    if source is None:
        return list(configs)
    raw, shown = workspace.root / "raw", sources.shown(source)
    found = [each for each in configs if sources.has_dataset(source, each.dataset, exclude=raw, progress=progress)]
    if not found:
        raise SourceError(
            f"none of the five corpora is at {shown}",
            hint="Name one with --dataset to see which files were expected and which are there.",
        )
    absent = [each.dataset for each in configs if each not in found]
    if absent:
        progress.say(f"not at {shown}: {', '.join(absent)}")
    return found
