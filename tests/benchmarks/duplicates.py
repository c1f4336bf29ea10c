"""Duplicates: how many of planted ones are found, how true what is found is, and what it costs.

`python -m tests.benchmarks.duplicates --quality [--workspace WORKSPACE]` plants an altered copy of each of some
documents that have no like, and looks which of them `corpus dedup` puts together with their originals. The documents
are those of a workspace, of which a copy is made; without one those of the built-in dataset, which is small.
`python -m tests.benchmarks.duplicates --documents 2000000` makes so many documents of the built-in dataset's sentences,
a tenth of them copies, and measures seconds, memory and disk.

Why a shingle has five characters: on the sample of real text in the official shapes (50,678 documents), at a threshold
of 0.8, with 250 copies of each kind,

    characters of a shingle                    3     4     5     6     7
    copies alike: typos in 1 % of characters  1.00  1.00  1.00  1.00  0.97
                  typos in 2 %                1.00  0.96  0.72  0.34  0.14
                  typos in 5 %                0.08  0.01  0.00  0.00  0.00
                  a fifth cut off             0.54  0.49  0.44  0.41  0.36
                  all sentences reordered     0.85  0.77  0.66  0.58  0.52
    pairs of the sample's own documents        413   288   223   181   149

Most pairs that are alike by three characters and not by five say something else in the same words (the time complexity
is O(n), is O(n^2)); by seven, a copy with two typos in a hundred characters is none.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import click
import numpy as np
import opencc
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.dedup.stage import DedupConfig
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents.stage import IngestConfig
from corpus.pipeline.manifest import BUILT_IN
from corpus.pipeline.progress import Progress
from corpus.pipeline.signatures import minhash
from corpus.pipeline.storage.document_shards import DOCUMENT_SCHEMA, part_name, parts
from corpus.pipeline.storage.row_shards import with_metadata
from corpus.pipeline.templates import TRANSLATE
from corpus.pipeline.text.normalize import fold
from corpus.pipeline.workspace.files import atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Ledger, fingerprint, write_ledger
from tests.benchmarks import measure

Row = tuple[str, str, str]
"""Id, split and text of a document."""
Alter = Callable[[str, np.random.Generator], str]
SEED = 20190219
ROWS_PER_SHARD = 20_000
"""Documents of a shard that is made here."""
_ORIGINALS = 200
_SHORTEST = 60
_CHANGED = 0.35
_COPIES = 0.05


def lay_documents(workspace: Workspace, dataset: str, shards: Iterable[Sequence[Row]]) -> None:
    """Write `documents/DATASET` as the ingesting stage leaves it."""
    folder = workspace.documents(dataset)
    shutil.rmtree(folder, ignore_errors=True)
    splits: Counter[str] = Counter()
    for number, rows in enumerate(shards):
        count = len(rows)
        ids, own, texts = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
        splits.update(own)
        columns = [ids, texts, [0] * count, own, ["made"] * count, list(range(count)), ["{}"] * count]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, DOCUMENT_SCHEMA, strict=True)]
        table = pa.Table.from_arrays(arrays, schema=DOCUMENT_SCHEMA)
        with atomic(folder / part_name(number)) as file:
            pq.write_table(with_metadata(table, "made", {"documents": count}), file, compression="zstd")
    outputs = [workspace.file_digest(path, folder) for path in parts(folder)]
    ledger = Ledger(
        stage="ingest", dataset=dataset, version=1, config={"min_length": 1}, inputs=[], outputs=outputs,
        counts={"documents": splits.total(), "splits": dict(splits)}, fingerprint=fingerprint("ingest", 1, {}, outputs),
    )  # fmt: skip
    write_ledger(folder, ledger, {})


def typos(text: str, random: np.random.Generator, *, share: float) -> str:
    """A share of the characters replaced, left out or written after another one."""
    made = list(text)
    for place in random.choice(len(text), max(1, round(share * len(text))), replace=False):
        other = text[random.integers(len(text))]
        made[place] = random.choice(["", made[place] + other, other, other, other])
    return "".join(made)


def cut(text: str, random: np.random.Generator, *, share: float) -> str:
    """Without its end."""
    return text[: len(text) - max(1, round(share * len(text)))]


def reorder(text: str, random: np.random.Generator, *, share: float) -> str:
    """A share of the sentences in another order."""
    sentences = _sentences(text)
    moved = np.sort(random.permutation(len(sentences))[: max(2, round(share * len(sentences)))])
    made = list(sentences)
    for place, other in zip(moved, random.permutation(moved), strict=True):
        made[place] = sentences[other]
    return "".join(made)


def reframe(text: str, random: np.random.Generator, *, share: float) -> str:
    """A header and a footer of other words, each of a share of the characters, in place of the first and last ones."""
    size = max(1, round(share * len(text)))
    header, footer = ("".join(random.permutation(list(text))[:size]) for _ in range(2))
    return header + text[size : len(text) - size] + footer


def traditional(text: str, random: np.random.Generator) -> str:
    """In the other script, as OpenCC writes it, phrases and all."""
    return str(opencc.OpenCC("s2t").convert(text))


def widen(text: str, random: np.random.Generator) -> str:
    """Letters, digits and punctuation in full width."""
    return "".join(chr(ord(character) + 0xFEE0) if "!" <= character <= "~" else character for character in text)


KINDS: dict[str, Alter] = {
    "Traditional": traditional,
    "full width": widen,
    **{f"typos {share:.0%}": partial(typos, share=share) for share in (0.01, 0.02, 0.03, 0.05, 0.1)},
    **{f"cut {share:.0%}": partial(cut, share=share) for share in (0.05, 0.1, 0.2, 0.3)},
    "other frame 5%": partial(reframe, share=0.05),
    **{f"reordered {share:.0%}": partial(reorder, share=share) for share in (0.1, 0.3, 1.0)},
}


def similarity(one: str, other: str, size: int = minhash.SHINGLE) -> float:
    """Jaccard similarity of the n-grams of two folded texts, without any of the code that is measured."""
    folded = [fold(text.removeprefix(TRANSLATE)) for text in (one, other)]
    sets = [{text[place : place + size] for place in range(len(text) - size + 1)} for text in folded]
    return len(sets[0] & sets[1]) / max(1, len(sets[0] | sets[1]))


def plant(texts: Sequence[str], random: np.random.Generator) -> list[tuple[str, int, str]]:
    """One altered copy of each text, the kinds in turn, as (kind, which text, copy)."""
    kinds = list(KINDS)
    copies = []
    for place, text in enumerate(texts):
        frame = TRANSLATE if text.startswith(TRANSLATE) else ""
        kind = kinds[place % len(kinds)]
        copies.append((kind, place, frame + KINDS[kind](text.removeprefix(frame), random)))
    return copies


def quality(workspace: Workspace, work: Path, originals: int, threshold: float) -> None:
    """Plant, find, and say of each kind how much was found."""
    random = np.random.default_rng(SEED)
    copy = Workspace(work / "quality")
    shutil.rmtree(copy.root, ignore_errors=True)
    names = [name for name in workspace.finished("documents") if name != BUILT_IN]
    for name in names or [BUILT_IN]:
        shutil.copytree(workspace.documents(name), copy.documents(name))
    find_duplicates(copy, threshold)
    alone = without_like(copy)
    chosen = [alone[place] for place in random.permutation(len(alone))[: originals * len(KINDS)]]
    copies = plant([text for _, text in chosen], random)
    planted = "wiki2019zh" if not names else BUILT_IN
    lay_documents(copy, planted, [[(f"copy {place}", "train", text) for _, place, text in copies]])
    find_duplicates(copy, threshold)
    rows = pq.read_table(copy.dedup / dedup.CLUSTERS).to_pylist()
    cluster = {(row["dataset"], row["id"]): row["cluster"] for row in rows}
    click.echo(f"{len(alone):,} documents without a like, {len(copies):,} copies\n")
    click.echo(
        f"{'kind':<16}{'copies':>8}{'similarity':>12}{f'>= {threshold}':>8}{'found':>8}{f'found of >= {threshold}':>17}"
    )
    for kind in KINDS:
        mine = [(chosen[place], place, text) for own, place, text in copies if own == kind]
        alike = np.array([similarity(original[1], text) for original, _, text in mine])
        found = np.array(
            [cluster.get((planted, f"copy {place}"), -1) == cluster.get(original[0], -2) for original, place, _ in mine]
        )
        near = alike >= threshold
        of_near = f"{found[near].mean():.3f}" if near.any() else "-"
        click.echo(f"{kind:<16}{len(mine):>8}{alike.mean():>12.3f}{near.mean():>8.2f}{found.mean():>8.2f}{of_near:>17}")
    _precision(copy, rows, threshold)
    _shingles([(kind, chosen[place][1], text) for kind, place, text in copies], threshold)


def find_duplicates(workspace: Workspace, threshold: float) -> None:
    """Run the stage."""
    with workspace.writing("dedup"):
        dedup.run(DedupConfig(workers=1, threshold=threshold), workspace)


def _texts(workspace: Workspace) -> dict[tuple[str, str], str]:
    return {
        (name, row["id"]): row["text"]
        for name in workspace.finished("documents")
        for path in parts(workspace.documents(name))
        for row in pq.read_table(path, columns=["id", "text"]).to_pylist()
    }


def without_like(workspace: Workspace) -> list[tuple[tuple[str, str], str]]:
    """Documents long enough that have no like, with dataset and id."""
    rows = pq.read_table(workspace.dedup / dedup.CLUSTERS, columns=["dataset", "id"]).to_pylist()
    taken = {(row["dataset"], row["id"]) for row in rows}
    return [
        (place, text)
        for place, text in sorted(_texts(workspace).items())
        if place not in taken
        and len(fold(text.removeprefix(TRANSLATE))) >= _SHORTEST
        and len(_sentences(text.removeprefix(TRANSLATE))) > 1
    ]


def _precision(workspace: Workspace, rows: Sequence[dict[str, object]], threshold: float) -> None:
    """Of what is removed, how much is truly so alike to what stays for it."""
    texts = _texts(workspace)
    kept = {row["cluster"]: texts[str(row["dataset"]), str(row["id"])] for row in rows if row["kept"]}
    gone = [row for row in rows if not row["kept"]]
    alike = np.array([similarity(texts[str(row["dataset"]), str(row["id"])], kept[row["cluster"]]) for row in gone])
    exact = np.array([row["reason"] == dedup.EXACT for row in gone])
    for name, which in ((dedup.EXACT, exact), (dedup.NEAR, ~exact)):
        if which.any():
            share = (alike[which] >= threshold).mean()
            click.echo(f"{name}: {which.sum():,} removed, {share:.1%} truly as alike, least {alike[which].min():.2f}")


def _shingles(pairs: Sequence[tuple[str, str, str]], threshold: float) -> None:
    """What share of copies could be found with shingles of other lengths."""
    click.echo(f"\n{f'similarity >= {threshold} with n =':<28}" + "".join(f"{n:>7}" for n in range(3, 8)))
    for kind in KINDS:
        mine = [(one, other) for own, one, other in pairs if own == kind]
        shares = [np.mean([similarity(one, other, n) >= threshold for one, other in mine]) for n in range(3, 8)]
        click.echo(f"{kind:<28}" + "".join(f"{share:>7.2f}" for share in shares))


def _sentences(text: str) -> list[str]:
    """Sentences with what ends them."""
    for mark in "。！？\n":
        text = text.replace(mark, f"{mark}\0")
    return [sentence for sentence in text.split("\0") if sentence]


def built_in(folder: Path) -> Workspace:
    """A workspace with the built-in dataset's documents."""
    from corpus.pipeline.download import stage as download
    from corpus.pipeline.download.stage import DownloadConfig

    workspace = Workspace(folder)
    with workspace.writing("download"):
        download.run(DownloadConfig(dataset=BUILT_IN), workspace)
        ingest.run(IngestConfig(dataset=BUILT_IN, workers=1), workspace)
    return workspace


def make(texts: Sequence[str], documents: int) -> Iterator[list[Row]]:
    """Shards of documents: sentences drawn at random with characters replaced; some are copies of earlier ones."""
    random = np.random.default_rng(SEED)
    sentences = [
        np.array([ord(character) for character in part], np.uint32) for text in texts for part in _sentences(text)
    ]
    common = np.concatenate(sentences)
    for first in range(0, documents, ROWS_PER_SHARD):
        rows: list[Row] = []
        for number in range(first, min(documents, first + ROWS_PER_SHARD)):
            draw = random.random()
            if rows and draw < 2 * _COPIES:
                text = rows[random.integers(len(rows))][2]
                text = text if draw < _COPIES else typos(text, random, share=0.01)
            else:
                codes = np.concatenate(
                    [sentences[i] for i in random.integers(0, len(sentences), random.integers(2, 9))]
                )
                places = np.flatnonzero(random.random(len(codes)) < _CHANGED)
                codes[places] = common[random.integers(0, len(common), len(places))]
                text = codes.astype("<u4").tobytes().decode("utf-32-le")
            rows.append((f"{number}", "validation" if number % 200 == 0 else "train", text))
        yield rows


def cost(work: Path, documents: int, workers: int) -> None:
    """Make documents, find their duplicates in a process of its own, and tell what that took."""
    workspace = Workspace(work / f"duplicates-{documents}")
    if not (workspace.documents("wiki2019zh") / "ledger.json").is_file():
        texts = list(_texts(built_in(work / "built-in")).values())
        lay_documents(workspace, "wiki2019zh", make(texts, documents))
    shutil.rmtree(workspace.dedup, ignore_errors=True)
    measure.warm(workspace.documents("wiki2019zh"))
    command = [
        sys.executable,
        "-m",
        f"{__package__}.duplicates",
        "--run",
        str(workspace.root),
        "--workers",
        str(workers),
    ]
    run = measure.process(command, on=workers, home=work)
    size = sum(path.stat().st_size for path in (workspace.dedup / "keys").rglob("*.parquet"))
    text = sum(len(text.encode()) for text in _some(workspace)) * documents / min(documents, ROWS_PER_SHARD)
    counts = dedup.run(DedupConfig(), workspace).ledger.counts if not run.error else {}
    click.echo(
        run.error or f"{documents:,} documents, {text / 1e6:,.0f} MB of text, {workers} workers: {run.wall_s:.0f} s"
    )
    click.echo(f"largest process {run.peak / 1e6:,.0f} MB, all of them {run.peak_total / 1e6:,.0f} MB")
    click.echo(f"keys {size / 1e6:,.0f} MB, {size / documents:.1f} bytes a document")
    click.echo({key: counts[key] for key in counts if key != "pairs"})


def _some(workspace: Workspace) -> list[str]:
    return list(pq.read_table(parts(workspace.documents("wiki2019zh"))[0], columns=["text"])["text"].to_pylist())


class _Timer(Progress):
    """Tells how long each part took."""

    def begin(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self._label, self._total, self._unit, self._start = label, total, unit, time.perf_counter()

    def end(self) -> None:
        click.echo(f"{self._label}: {self._total:,} {self._unit}, {time.perf_counter() - self._start:.1f} s", err=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--quality", "wants_quality", is_flag=True, help="Plant altered copies and look which are found.")
@click.option("--workspace", type=click.Path(path_type=Path), help="Whose documents; a copy is made.")
@click.option("--originals", type=click.IntRange(1), default=_ORIGINALS, help="Documents altered of each kind.")
@click.option("--threshold", type=float, default=dedup.THRESHOLD, help="Least similarity, with --quality.")
@click.option("--documents", type=click.IntRange(0), default=0, help="Documents to make and compare.")
@click.option("--workers", type=click.IntRange(1), default=2)
@click.option("--work", type=click.Path(path_type=Path), default=Path(tempfile.gettempdir()) / "bench-duplicates")
@click.option("--run", type=click.Path(path_type=Path), hidden=True)
def main(
    wants_quality: bool,
    workspace: Path | None,
    originals: int,
    threshold: float,
    documents: int,
    workers: int,
    work: Path,
    run: Path | None,
) -> None:
    """Measure how duplicates are found."""
    if run is not None:
        with Workspace(run).writing("dedup"):
            dedup.run(DedupConfig(workers=workers), Workspace(run), progress=_Timer())
    if wants_quality:
        quality(Workspace(workspace) if workspace else built_in(work / "built-in"), work, originals, threshold)
    if documents:
        cost(work, documents, workers)


if __name__ == "__main__":
    main()
