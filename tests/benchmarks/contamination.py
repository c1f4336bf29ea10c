"""How much of what is planted `corpus decontaminate` finds, how much it finds for nothing, and how fast.

In: evaluation files and the documents of a workspace where they are given, else sentences and documents of the built-in
dataset. Out: three tables: passages planted into unrelated documents, changed in one way each, and the share found;
documents that hit with nothing planted, to be read one by one with `--show`; megabytes a second by part.
A passage is planted between two sentences of a document; a document is unrelated where it is hit by nothing before.

Run it with `python -m tests.benchmarks.contamination`, or on real text with
`--workspace FOLDER --against FILE --against FILE`. Cost: about a minute on 20 MB of text.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq

from corpus.pipeline.decontaminate import eval_files, matching
from corpus.pipeline.decontaminate.matching import Hit
from corpus.pipeline.decontaminate.ngram_index import NGRAM, WIDE_WEIGHT, Index, Owner, build_index
from corpus.pipeline.storage.document_shards import parts
from corpus.pipeline.text.ngrams import ngram_hashes
from corpus.pipeline.text.normalize import fold_all
from corpus.pipeline.workspace.layout import Workspace
from tests.benchmarks.inputs import ROOT

Change = Callable[[str, random.Random], str]
_MARKS = "，。、；：！？“”《》（）…,.;:!?\"'()-· 　"
_HAN = [chr(code) for code in range(0x4E00, 0x9FA5)]
_SHORT = 40 * WIDE_WEIGHT


def verbatim(text: str, _: random.Random) -> str:
    return text


def repunctuated(text: str, chance: random.Random) -> str:
    """Every mark another one, and some where there were none."""
    made = [chance.choice(_MARKS) if mark in _MARKS else mark for mark in text]
    return "".join(mark + (chance.choice(_MARKS) if chance.random() < 0.1 else "") for mark in made)


def traditional(text: str, _: random.Random) -> str:
    return str(_converter().convert(text))


@functools.cache
def _converter() -> Any:
    import opencc

    return opencc.OpenCC("s2t")


def full_width(text: str, _: random.Random) -> str:
    return "".join(chr(ord(mark) + 0xFEE0) if "!" <= mark <= "~" else mark for mark in text)


def typos(count: int) -> Change:
    """Characters replaced by others."""

    def change(text: str, chance: random.Random) -> str:
        marks = list(text)
        places = fold_all([text]).positions.tolist()
        for place in chance.sample(places, min(count, len(places))):
            marks[place] = chance.choice(_HAN)
        return "".join(marks)

    return change


def first_half(text: str, _: random.Random) -> str:
    return text[: (len(text) + 1) // 2]


CHANGES: dict[str, Change] = {
    "verbatim": verbatim,
    "other punctuation": repunctuated,
    "Traditional": traditional,
    "full width": full_width,
    "one typo": typos(1),
    "three typos": typos(3),
    "first half": first_half,
}
FOLDED = ("verbatim", "other punctuation", "Traditional", "full width")
"""The changes that folding undoes."""


@dataclass(frozen=True, slots=True)
class Planted:
    """A document with a passage in it."""

    document: str
    passage: int
    start: int
    end: int


def plant(text: str, passage: int, host: str, chance: random.Random) -> Planted:
    """A document with a text between two of its sentences, on a line of its own so that short ones count too."""
    places = [found.end() for found in re.finditer("[。！？\n]", host)] or [len(host)]
    place = chance.choice(places)
    return Planted(f"{host[:place]}\n{text}\n{host[place:]}", passage, place + 1, place + 1 + len(text))


def passages(texts: Sequence[tuple[Owner, str]], index: Index) -> list[str]:
    """One text of every passage of the index."""
    known = {fold_all([text]).codes.tobytes(): text for _, text in texts}
    return [known[index.codes[start:end].tobytes()] for start, end in itertools.pairwise(index.starts.tolist())]


def found_share(
    index: Index, texts: Sequence[str], hosts: Sequence[str], change: Change, count: int, chance: random.Random
) -> tuple[dict[str, tuple[int, int]], list[Planted]]:
    """Found and planted passages, of short and of long ones; and those that were missed."""
    chosen = chance.sample(range(len(texts)), min(count, len(texts)))
    made = [plant(change(texts[passage], chance), passage, chance.choice(hosts), chance) for passage in chosen]
    hits: dict[int, list[Hit]] = {}
    for hit in matching.find_hits(index, [planted.document for planted in made]):
        hits.setdefault(hit.document, []).append(hit)
    table = {"short": (0, 0), "long": (0, 0)}
    missed: list[Planted] = []
    for number, planted in enumerate(made):
        weight = int(index.weights[index.starts[planted.passage + 1]] - index.weights[index.starts[planted.passage]])
        kind = "short" if weight < _SHORT else "long"
        found = any(hit.passage == planted.passage for hit in hits.get(number, ()))
        table[kind] = (table[kind][0] + found, table[kind][1] + 1)
        if not found:
            missed.append(planted)
    return table, missed


def unrelated(index: Index, documents: Sequence[str]) -> list[str]:
    """The documents that nothing hits, not even a little."""
    hit = {hit.document for hit in matching.find_hits(index, documents, min_share=0.05)}
    return [document for number, document in enumerate(documents) if number not in hit]


def built_in() -> tuple[list[tuple[Owner, str]], dict[str, list[str]]]:
    """Sentences and paragraphs of the questions and answers as items, articles and news as documents."""
    folder = ROOT / "manifests" / "demo"

    def records(name: str) -> Iterator[dict[str, str]]:
        for line in (folder / f"{name}.json").read_bytes().split(b"\n"):
            with contextlib.suppress(ValueError):  # some are broken on purpose
                yield json.loads(line)

    items: list[tuple[Owner, str]] = []
    for number, record in enumerate([*records("baike"), *records("webtext")], 1):
        answer = record.get("answer") or record.get("content") or ""
        texts = {"question": record["title"], "answer": answer, "sentence": re.split("(?<=[。！？])", answer)[0]}
        items += [(Owner("built-in", number, field), text) for field, text in texts.items()]
    documents = {
        "wiki2019zh": [record["text"] for record in records("wiki")],
        "news2016zh": [f"{record['title']}\n\n{record['content']}" for record in records("news")],
    }
    return items, documents


def _documents(workspace: Workspace) -> dict[str, list[str]]:
    return {
        name: [
            text
            for path in parts(workspace.documents(name))
            for text in pq.read_table(path, columns=["text"])["text"].to_pylist()
        ]
        for name in workspace.finished("documents")
    }


@click.command()
@click.option("--workspace", type=click.Path(path_type=Path, exists=True), help="Whose documents are looked through.")
@click.option("--against", type=click.Path(path_type=Path, exists=True), multiple=True, help="Evaluation files.")
@click.option("--field", "fields", multiple=True, help="Fields of their items that count.")
@click.option("--count", default=1000, show_default=True, help="Passages to plant for each change.")
@click.option("--show", is_flag=True, help="Print every hit of documents in which nothing was planted.")
@click.option("--seed", default=1, show_default=True, help="Of what is planted where.")
def main(
    workspace: Path | None, against: tuple[Path, ...], fields: tuple[str, ...], count: int, show: bool, seed: int
) -> None:
    """Print the three tables."""
    items, documents = built_in()
    if against:
        items = [text for path in against for text in eval_files.read(path, fields).texts]
    if workspace is not None:
        documents = _documents(Workspace(workspace))
    index = build_index(items)
    print(f"{len(items):,} texts, {len(index.owners):,} passages, {len(index.grams):,} n-grams, ", end="")
    print(f"{index.common_ngrams:,} too common, {sum(map(len, index.lines.values())):,} passages only as whole lines\n")
    _print_planted(index, items, [text for texts in documents.values() for text in texts], count, seed)
    _print_false(index, documents, show=show)
    _print_speed(index, documents)


def _print_planted(
    index: Index, items: Sequence[tuple[Owner, str]], documents: Sequence[str], count: int, seed: int
) -> None:
    texts, hosts = passages(items, index), unrelated(index, documents)
    print("planted | passages below the weight of 40 Chinese characters | others")
    for name, change in CHANGES.items():
        table, missed = found_share(index, texts, hosts, change, count, random.Random(seed))
        cells = [f"{found} of {made} ({found / max(1, made):.1%})" for found, made in table.values()]
        print(f"{name} | {' | '.join(cells)}")
        if name in FOLDED:
            for planted in missed[:5]:
                print(f"  missed: {planted.document[planted.start : planted.end][:80]!r}")


def _print_false(index: Index, documents: dict[str, list[str]], *, show: bool) -> None:
    print("\ndocuments in which nothing was planted | hit | texts shared")
    for name, texts in documents.items():
        hits = list(matching.find_hits(index, texts))
        fields = Counter(index.owners[hit.passage][0].field for hit in hits)
        told = ", ".join(f"{field} {number}" for field, number in sorted(fields.items()))
        print(f"{name}: {len(texts):,} | {len({hit.document for hit in hits}):,} | {told}")
        for hit in hits if show else ():
            owner = index.owners[hit.passage][0]
            print(f"  {hit.document} {owner.file}:{owner.item} {owner.field} {hit.share:.2f} ", end="")
            print(f"{hit.longest / WIDE_WEIGHT:.0f} {texts[hit.document][slice(*hit.span)][:60]!r}")


def _print_speed(index: Index, documents: dict[str, list[str]]) -> None:
    print("\nMB/s, best of five | fold | hash | look up | lines | all")
    for name, texts in documents.items():
        size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) / 1e6
        print(f"{name} {size:.1f} MB | {' | '.join(f'{size / seconds:.0f}' for seconds in _seconds(index, texts))}")


def _seconds(index: Index, texts: Sequence[str]) -> list[float]:
    """What the parts of a search take, and all of it."""
    blocks = [block for _, block in matching.split_blocks(texts, matching.BLOCK_CHARACTERS)]
    folded = [fold_all(block) for block in blocks]
    hashes = [ngram_hashes(block.codes, NGRAM) for block in folded]
    works = (
        lambda: [fold_all(block) for block in blocks],
        lambda: [ngram_hashes(block.codes, NGRAM) for block in folded],
        lambda: [index.seeds(block) for block in hashes],
        lambda: [matching.find_lines(index, one, other) for one, other in zip(folded, blocks, strict=True)],
        lambda: list(matching.find_hits(index, texts)),
    )
    return [_best(work) for work in works]


def _best(work: Callable[[], object]) -> float:
    """Seconds of the best of five runs."""
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
