"""The report of a workspace: `report/index.html`.

In: ledgers, and a seeded sample of documents and rows.
Out: one self-contained HTML file of at most some megabytes, whatever the corpus.
Invariants: figures are the ledgers'. Equal workspaces and seeds give equal pages. Nothing else in the workspace is
written, so the report can be made while another command runs.
Cost: some seconds, whatever the corpus.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from corpus.pipeline.dedup.stage import EXACT, NEAR
from corpus.pipeline.inspect.examples import STATES, Example
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.report import charts, examples, facts, page
from corpus.pipeline.report.charts import Chart
from corpus.pipeline.tokenizer import files
from corpus.pipeline.workspace.checked import checked
from corpus.pipeline.workspace.files import write_atomic
from corpus.pipeline.workspace.layout import Workspace

_MOST_SHOWN = 3_000_000
"""Characters of all documents shown; the page stays below ten megabytes."""


def run(workspace: Workspace, *, seed: int = 1, progress: Progress = SILENT) -> Path:
    """Write the report and return its path; `seed` decides which documents and rows it shows.

    What cannot be read is named on the page, and to `progress`.

    Raises:
        DiskError: the page cannot be written.

    """
    found, model = facts.gather(workspace), None
    with found.problems.noted():
        path = workspace.tokenizer / "tokenizer.json"
        model = files.load(checked(workspace, path).parent) if found.tokenizer else None
    datasets, shown = list[dict[str, Any]](), list[Example]()
    with progress.bar("report", len(found.datasets), "datasets"):
        for dataset in found.datasets:
            measured = examples.NOTHING
            with found.problems.noted():
                measured = examples.measure(workspace, dataset.name, model, seed)
            datasets.append(_dataset(dataset, measured))
            with found.problems.noted():
                shown += examples.documents(workspace, dataset.name, seed)
            progress.advance(1)
        packed = list(_packed(workspace, found, model, seed))
        vocabulary = examples.vocabulary(workspace.tokenizer) if model else None
        tokens = {each.name: each.tokens for each in found.datasets if each.tokens}
        tokens = tokens if len(tokens) > 1 else {}  # one bar of 100 % shows nothing
        text = page.render(
            facts=found,
            seed=seed,
            datasets=datasets,
            total={key: sum(getattr(each, key) for each in found.datasets) for key in _TOTALS},
            mixture=_first(charts.bars("mixture", "mixture", tokens, whole=sum(tokens.values()))),
            split_keys=("documents", "characters", "packed_documents", "rows", "tokens", "padding", "cut_documents"),
            states=STATES,
            **_documents(shown, workspace.root.name),
            scored=list(_scored(workspace, found, seed)) if found.quality else [],
            tokenizer_charts=_tokenizer(found, model),
            vocabulary=page.data(vocabulary) if vocabulary else "",
            packed=packed,
            runs=[{"facts": run, "charts": _run(number, run)} for number, run in enumerate(found.runs)],
        )
    for problem in found.problems:
        progress.say(f"not shown: {problem}")
    path = workspace.root / "report" / "index.html"
    write_atomic(path, text.encode("utf-8", "replace"))
    return path


_SCORE_BARS = 10
_TOTALS = ("records", "documents", "used", "tokens")


def _dataset(dataset: facts.Dataset, measured: examples.TextStatistics) -> dict[str, Any]:
    name = dataset.name
    lost = {**dataset.dropped, **dataset.left_out}
    way = {"records": dataset.records, "documents": dataset.documents, "used": dataset.used}
    colours = [3] * len(dataset.dropped) + [1] * len(dataset.left_out)
    changed = {**dataset.cleaned, **dataset.masked}
    return {
        "facts": dataset,
        "measured": measured,
        "way": _first(charts.bars(f"{name}-way", "way", way, whole=dataset.records, named=True)),
        "lost": _first(
            charts.bars(f"{name}-lost", "lost", lost, whole=dataset.records, logarithmic=True, colours=colours)
        ),
        "charts": [
            *charts.distribution(f"{name}-characters", "characters_chart", measured.characters, unit="characters"),
            *charts.distribution(f"{name}-tokens", "tokens_chart", measured.tokens, unit="tokens"),
            *charts.bars(
                f"{name}-classes", "classes_chart", measured.classes, whole=sum(measured.classes.values()), named=True
            ),
            *charts.bars(f"{name}-cleaned", "cleaned_chart", changed, whole=dataset.documents, logarithmic=True),
        ],
    }


def _scored(workspace: Workspace, found: facts.Facts, seed: int) -> Iterator[dict[str, Any]]:
    """The scores of each dataset as a chart, and documents at the deciles."""
    for name, counts in (found.quality or {}).get("datasets", {}).items():
        bins = counts["histogram"]
        width = len(bins) // _SCORE_BARS
        bars = {
            f"{at / _SCORE_BARS:.1f} - {(at + 1) / _SCORE_BARS:.1f}": sum(bins[at * width : (at + 1) * width])
            for at in range(_SCORE_BARS)
        }
        shown = list[dict[str, Any]]()
        with found.problems.noted():
            shown = examples.score_deciles(workspace, name, seed)
        drawn = charts.bars(f"{name}-scores", "scores_chart", bars, whole=sum(bins), logarithmic=True)
        yield {"name": name, "chart": _first(drawn), "deciles": shown}


def _first(found: Sequence[Chart]) -> Chart | None:
    return found[0] if found else None


def _documents(shown: Sequence[Example], place: str) -> dict[str, Any]:
    """The documents shown, each with its reasons and the command that finds it."""
    entries, characters = [], 0
    for each in shown:
        characters += sum(len(piece) for _, piece in each.pieces)
        if characters > _MOST_SHOWN:
            break
        reasons = _reasons(each)
        where = f"--document {shlex.quote(each.id)}" if each.state != "dropped" else f"--rejected {reasons[0]}"
        entries.append(
            {
                **{key: getattr(each, key) for key in _SHOWN},
                "reasons": reasons,
                "instead": each.state == "left-out" and reasons[0] in {EXACT, NEAR},
                "command": f"corpus trace --dataset {each.dataset} {where} --workspace {shlex.quote(place)}",
            }
        )
    return {"shown": entries, "reasons": sorted({reason for entry in entries for reason in entry["reasons"]})}


_SHOWN = ("dataset", "id", "state", "why", "pieces", "source_file", "source_offset")


def _reasons(shown: Example) -> list[str]:
    if shown.state == "changed":
        return [rule.removeprefix("mask ") for rule in shown.why.split(", ")]
    return [] if shown.state == "kept" else [shown.why.partition(":")[0]]


def _tokenizer(found: facts.Facts, model: Tokenizer | None) -> list[Chart]:
    if not found.tokenizer or model is None:
        return []
    own, shown = found.tokenizer["datasets"], list[Chart]()
    for key, title, form in (
        ("bytes_per_token", "bytes_per_token", "{:.3f}"),
        ("characters_per_token", "characters_per_token", "{:.3f}"),
        ("han_with_own_token", "han_coverage", "{:.2%}"),
    ):
        values = {name: counts[key] for name, counts in own.items() if counts.get(key) is not None}
        shown += charts.bars(f"tokenizer-{key}", title, values, form=form)
    lengths = examples.token_lengths(model)
    grouped = {str(length): lengths[length] for length in range(12)}
    grouped["12+"] = sum(count for length, count in lengths.items() if length >= 12)
    drawn = {name: count for name, count in grouped.items() if count}
    return shown + charts.bars("tokenizer-entries", "entry_lengths", drawn)


def _packed(workspace: Workspace, found: facts.Facts, model: Tokenizer | None, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of each dataset and form: counts of all splits, and a few rows to draw."""
    if model is None:
        return
    forms: list[tuple[str, str, Any]] = [("text", each.name, each.splits) for each in found.datasets if each.slots]
    forms += [("chat", name, splits) for name, splits in found.chat.items()]
    for form, name, splits in forms:
        keys = ("rows", "tokens", "padding", "cut_documents")
        counts = {key: sum(split.get(key, 0) for split in splits.values()) for key in keys}
        slots, strips = counts["tokens"] + counts["padding"], list[dict[str, Any]]()
        with found.problems.noted():
            strips = examples.packed_rows(workspace, name, model, seed, form)
        utilisation = counts["tokens"] / slots if slots else 0.0
        yield {"form": form, "name": name, "counts": counts, "utilisation": utilisation, "strips": strips}


def _run(number: int, run: facts.Run) -> list[Chart]:
    """Charts of loss, bits per character and learning rate, as far as they were logged."""
    bits = {name: run.points(f"{name}/bits_per_character") for name in run.validated}
    return [
        *charts.lines(f"run-{number}-loss", "loss_chart", {"loss": run.points("loss")}),
        *charts.lines(f"run-{number}-bits", "bits_chart", bits),
        *charts.lines(f"run-{number}-rate", "rate_chart", {"learning_rate": run.points("learning_rate")}),
    ]
