"""Which split pattern: bits per character of one small model at equal training compute, for four patterns.

In: the sample of real text (CORPUS_MIRROR). Out: a table, one row a pattern, one column a corpus. Every pattern gets
its own tokenizer of the same size on the same documents, rows of the same length, a model of the same shape and as
many steps; the held-out documents are the corpora's own validation splits. A pattern that makes longer tokens reads
more text in these steps: that is its merit. Bits per character, not loss or bytes per token, can be compared.

Run it with `python -m tests.benchmarks.patterns --work FOLDER`. Cost: about ten minutes a pattern on two cores.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from tokenizers import Regex, pre_tokenizers

from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.download import stage as download
from corpus.pipeline.manifest import CORPORA
from corpus.pipeline.tokenizer import stage as tokenizer
from corpus.pipeline.tokenizer import trainer
from corpus.pipeline.workspace.layout import Workspace
from tests.benchmarks import small
from tests.benchmarks.inputs import MIRROR

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {
    "GPT-2": "",
    "Qwen-2": rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}",
    "Llama-3": rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}",
    "DeepSeek-3": "",
}
"""The regular expressions as their tokenizer files give them; two are made of more than one step, see `splitter`."""


def splitter(name: str) -> pre_tokenizers.PreTokenizer:
    """The split of a model family, with bytes as characters after it."""
    if name == "GPT-2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    steps = [PATTERNS[name]]
    if name == "DeepSeek-3":
        steps = [
            r"\p{N}{1,3}",
            r"[一-龥぀-ゟ゠-ヿ]+",
            (
                r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
                r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            ),
        ]
    parts = [pre_tokenizers.Split(Regex(step), "isolated") for step in steps]
    return pre_tokenizers.Sequence([*parts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for workspaces.")
@small.options
@click.option("--seed", default=1, show_default=True, help="Of weights and order.")
def main(work: Path, seed: int, **settings: Any) -> None:
    """Train one model a split pattern and print the table."""
    base = _documents(work / "base")
    print("pattern, bytes/token | bits per character: " + ", ".join(CORPORA), flush=True)
    for name in PATTERNS:
        row = _measure(name, base, work / name, seed, settings)
        print(
            f"{name}, {row.pop('bytes_per_token'):.3f} | {', '.join(f'{bits:.3f}' for bits in row.values())}",
            flush=True,
        )


def _documents(folder: Path) -> Workspace:
    workspace = Workspace(folder)
    with workspace.writing("patterns"):
        for dataset in CORPORA:
            download.run(download.DownloadConfig(dataset=dataset, source=str(MIRROR)), workspace)
            ingest.run(ingest.IngestConfig(dataset=dataset), workspace)
    return workspace


def _measure(name: str, base: Workspace, folder: Path, seed: int, settings: dict[str, Any]) -> dict[str, float]:
    workspace = Workspace(folder)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base.root / "documents", folder / "documents")
    with workspace.writing("patterns"):
        report = _with_split(name, lambda: _tokenizer(workspace, settings["vocab_size"]))
        scores = small.bits_per_character(workspace, seed, settings)
    tables = report.ledger.counts["datasets"].values()
    size = sum(table["bytes_per_token"] * table["tokens"] for table in tables)
    return {"bytes_per_token": size / sum(table["tokens"] for table in tables)} | scores


def _tokenizer(workspace: Workspace, vocab_size: int) -> Any:
    return tokenizer.run(tokenizer.TokenizerConfig(vocab_size=vocab_size), workspace)


def _with_split(name: str, work: Callable[[], Any]) -> Any:
    """Do some work while the tokenizer stage splits in another way, by the reference trainer in this process."""
    split, aside = trainer._split, tokenizer._ASIDE_CHARACTERS
    trainer._split, tokenizer._ASIDE_CHARACTERS = (lambda: splitter(name)), 1 << 60
    try:
        return work()
    finally:
        trainer._split, tokenizer._ASIDE_CHARACTERS = split, aside


if __name__ == "__main__":
    main()
