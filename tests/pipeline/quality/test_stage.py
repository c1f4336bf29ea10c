"""The learned score as a stage: what is left out, the books, the reruns, and what it refuses."""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from corpus.pipeline.decontaminate import stage as decontaminate
from corpus.pipeline.decontaminate.config import DecontaminateConfig
from corpus.pipeline.dedup import DedupConfig
from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.errors import BooksError, DamageError, SourceError, WorkspaceError
from corpus.pipeline.inspect import lineage
from corpus.pipeline.quality import QualityConfig, lists
from corpus.pipeline.quality.scoring import draws_of, keys_of
from corpus.pipeline.report.examples import score_deciles
from corpus.pipeline.storage import selection
from corpus.pipeline.storage.document_shards import read_part
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger
from tests.benchmarks.duplicates import lay_documents
from tests.support.documents import Listener, tree
from tests.support.left_out import documents_out, spans_out
from tests.support.records import lines
from tests.support.scored import GOOD, MIXED, OTHER, PLAIN, POSITIVE, lay, make, random_model, rows, sample, scores


def documents(workspace: Workspace, dataset: str) -> list[dict[str, Any]]:
    paths = sorted(workspace.documents(dataset).glob("part-*.parquet"))
    return [row for path in paths for _, _, batch in read_part(path) for row in batch.to_pylist()]


def test_other_text_goes_and_good_text_stays(workspace: Workspace) -> None:
    counts = make(lay(workspace), POSITIVE).ledger.counts
    assert counts["model"]["auc"] > 0.6
    assert counts["model"]["auc_against"][PLAIN] > counts["model"]["auc_against"][MIXED]
    assert counts["model"]["held_back"] == {"positive": 8, "other": 15}
    assert rows(workspace, POSITIVE) == []
    for name in (MIXED, PLAIN):
        known = {row["id"]: row for row in documents(workspace, name)}
        found = scores(workspace, name)
        assert [row["id"] for row in found] == list(known)
        assert [row["characters"] for row in found] == [len(row["text"]) for row in known.values()]
        draws = draws_of(keys_of(name, known))
        gone = [
            row
            for row, draw in zip(found, draws.tolist(), strict=True)
            if row["split"] == "train" and not draw < (2 - row["score"]) ** -9
        ]
        listed = rows(workspace, name)
        assert [row["id"] for row in listed] == [row["id"] for row in gone]
        for row, own in zip(listed, gone, strict=True):
            assert (row["document"], row["split"], row["reason"]) == (own["document"], "train", "low_quality")
            assert (row["detail"], row["start"], row["whole"]) == (f"score {own['score']:.4f}", 0, True)
            assert row["end"] == own["characters"]
        assert counts["datasets"][name]["low_quality"] == {"train": len(listed)}
        assert sum(counts["datasets"][name]["histogram"]) == 120
        assert sum(each["low_quality"] for each in counts["datasets"][name]["lengths"]) == len(listed)
        chosen = selection.load(workspace, name)
        assert chosen.reasons == Counter(low_quality=len(listed))
        assert chosen.characters["train"] == sum(row["end"] for row in listed)
    kept = {name: 72 - counts["datasets"][name]["low_quality"]["train"] for name in (MIXED, PLAIN)}
    assert kept[MIXED] > kept[PLAIN]


def test_few_that_stay_are_noted(workspace: Workspace) -> None:
    laid = sample()
    laid.pop(MIXED)
    (note,) = make(lay(workspace, laid), POSITIVE).notes
    assert re.search(rf"little stays of {PLAIN} \d\.\d%", note)
    assert make(workspace, POSITIVE, alpha=0.3).notes == ()


def test_workers_order_and_interruption_change_no_byte(tmp_path: Path) -> None:
    laid, trees = sample(), []
    for number, workers in enumerate((1, 2)):
        workspace = lay(Workspace(tmp_path / str(number)), dict(reversed(laid.items())) if number else laid)
        make(workspace, POSITIVE, workers=workers)
        trees.append(tree(workspace.quality))
    assert trees[0] == trees[1]
    assert all(str(tmp_path).encode() not in data for data in trees[0].values())
    for missing in ("model.safetensors", f"scores/{MIXED}/part-00001.parquet", f"lists/{PLAIN}.json", "scores"):
        path = workspace.quality / missing
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        (workspace.quality / "ledger.json").unlink()
        (workspace.quality / ".lists.77.tmp").write_bytes(b"half")
        make(workspace, POSITIVE)
        assert tree(workspace.quality) == trees[0]


def test_a_rerun_makes_only_what_has_changed(workspace: Workspace) -> None:
    laid = sample()
    lay(workspace, {name: laid[name] for name in (POSITIVE, MIXED)})
    assert not make(workspace, POSITIVE).skipped
    assert make(workspace).skipped  # what is good is remembered
    before, listener = tree(workspace.quality), Listener()
    assert make(workspace, alpha=2, progress=listener).reasons == ("alpha was 9.0 and is 2",)
    assert listener.said[1:] == ["quality: the scores of 4 of 4 shards are kept"]
    after = tree(workspace.quality)
    changed = {name for name in after if after[name] != before[name]}
    lists_of = {f"lists/{MIXED}.json", *(f"lists/{MIXED}/part-0000{number}.parquet" for number in range(2))}
    assert changed == {"ledger.json", *lists_of}
    damaged = workspace.quality / "scores" / MIXED / "part-00000.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    make(workspace, alpha=2)
    assert tree(workspace.quality) == after
    lay(workspace, {PLAIN: laid[PLAIN]})
    report = make(workspace)
    assert f"input documents/{PLAIN}/ledger.json is new" in report.reasons
    assert rows(workspace, PLAIN)
    make(workspace, POSITIVE, datasets=(PLAIN,), alpha=3)
    assert make(workspace).skipped  # datasets and alpha are remembered, too
    assert sorted(path.stem for path in workspace.quality.glob("lists/*.json")) == sorted([POSITIVE, PLAIN])
    assert not (workspace.quality / "scores" / MIXED / "part-00000.parquet").exists()


def test_a_model_gives_the_same_documents_elsewhere_without_scikit_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = (lay(Workspace(tmp_path / name)) for name in ("here", "there"))
    make(here, POSITIVE)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(WorkspaceError, match="needs scikit-learn") as caught:
        make(there, POSITIVE)
    assert "corpus-zh[quality]" in caught.value.hint
    make(there, model=here.quality / "model.safetensors")
    names = [name for name in tree(here.quality) if name != "ledger.json"]
    assert {name: data for name, data in tree(there.quality).items() if name in names} == {
        name: tree(here.quality)[name] for name in names
    }
    assert make(there).skipped
    assert not make(there, model=random_model(tmp_path / "other.safetensors")).skipped


def test_files_of_good_text_stay_in_the_workspace(workspace: Workspace, tmp_path: Path) -> None:
    lay(workspace, {MIXED: sample()[MIXED]})
    good = tmp_path / "good.jsonl"
    good.write_bytes(lines([{"id": "x" * 40, "text": {"body": GOOD[n % 9 : 20 + n % 20]}} for n in range(40)]))
    counts = make(workspace, good, fields=("text",)).ledger.counts
    assert counts["model"]["documents"] == {"positive": 40, "other": 72}
    assert counts["model"]["auc"] > 0.7
    assert counts["model"]["positive"] == ["good.jsonl"]
    assert rows(workspace, MIXED)
    good.unlink()
    assert make(workspace).skipped
    text = tmp_path / "more.txt"
    text.write_text("\n".join([GOOD[:30]] * 30), encoding="utf-8")
    assert "input quality/positive/good.jsonl is gone" in make(workspace, text).reasons
    assert [path.name for path in (workspace.quality / "positive").iterdir()] == ["more.txt"]
    few = tmp_path / "few.txt"
    few.write_text("一\n二", encoding="utf-8")
    with pytest.raises(WorkspaceError, match="2 positive texts"):
        make(workspace, few)
    assert make(workspace).skipped  # what failed took nothing away
    (workspace.quality / "positive" / "more.txt").unlink()
    with pytest.raises(WorkspaceError, match=r"more\.txt, the good text of the last run, is no longer there"):
        make(workspace)


def test_a_damaged_model_scores_nothing(workspace: Workspace, tmp_path: Path) -> None:
    """Weights of other bytes are still weights: only the ledger tells that they are not those that were trained."""
    laid = sample()
    lay(workspace, {name: laid[name] for name in (POSITIVE, PLAIN)})
    make(workspace, POSITIVE)
    model, before = workspace.quality / "model.safetensors", tree(workspace.quality)
    model.write_bytes(model.read_bytes()[:-4] + b"\x7f" * 4)
    make(workspace)
    assert tree(workspace.quality) == before
    make(workspace, model=random_model(tmp_path / "given.safetensors"))
    model.write_bytes(model.read_bytes()[:-4] + b"\x7f" * 4)
    with pytest.raises(DamageError, match="is no longer the model that was given"):
        make(workspace)
    assert not make(workspace, model=tmp_path / "given.safetensors").skipped


def test_what_others_leave_out_is_not_scored_and_counts_once(workspace: Workspace, tmp_path: Path) -> None:
    laid = sample()
    secret = "石桥的第七块石板下面刻着工匠的名字与年月"
    laid[MIXED][0][0] = ("twice", "train", laid[MIXED][0][5][2])
    laid[MIXED][1][1] = ("cut", "train", f"{OTHER}{secret}{OTHER}")
    lay(workspace, laid)
    exam = tmp_path / "exam.jsonl"
    exam.write_bytes(lines([{"question": secret}]))
    dedup.run(DedupConfig(workers=1), workspace)
    decontaminate.run(DecontaminateConfig(against=(exam,), cut=True, workers=1), workspace)
    counts = make(workspace, POSITIVE).ledger.counts["datasets"][MIXED]
    assert counts["left_out_before"] == 1
    assert sum(counts["documents"].values()) == 119
    by_id = {row["id"]: row for row in scores(workspace, MIXED)}
    chosen = selection.load(workspace, MIXED)
    gone = {row["id"]: row for row in rows(workspace, MIXED)}
    assert "cut" in gone
    assert by_id["cut"]["characters"] == gone["cut"]["end"] == len(OTHER) * 2 + len(secret)
    assert spans_out(chosen) == {}
    assert chosen.reasons["near_duplicate"] + chosen.reasons["exact_duplicate"] == 1
    texts = {row["id"]: row["text"] for row in documents(workspace, MIXED)}
    duplicate = ({"twice", laid[MIXED][0][5][0]} - by_id.keys()).pop()
    assert chosen.characters.total() == sum(len(texts[name]) for name in {*gone, duplicate})
    assert chosen.documents.total() == len(gone) + 1
    dedup.run(DedupConfig(workers=1, datasets=(POSITIVE,)), workspace)  # the other lists are older now
    again = selection.load(workspace, MIXED)
    assert again.documents.total() == len(gone)


def test_a_document_on_two_lists_counts_for_the_first(workspace: Workspace) -> None:
    laid = sample()
    first = laid[MIXED][0][5]
    laid[MIXED][0][6] = ("twice", "train", first[2])
    make(lay(workspace, laid), POSITIVE, alpha=90)
    assert {first[0], "twice"} <= {row["id"] for row in rows(workspace, MIXED)}
    dedup.run(DedupConfig(workers=1), workspace)
    chosen = selection.load(workspace, MIXED)
    assert chosen.reasons["exact_duplicate"] == 1
    assert chosen.reasons["low_quality"] == len(rows(workspace, MIXED)) - 1
    assert chosen.documents.total() == len(documents_out(chosen))
    assert chosen.characters["train"] == sum(row["end"] for row in rows(workspace, MIXED))


def test_a_stale_list_is_refused(workspace: Workspace) -> None:
    laid = sample()
    make(lay(workspace, laid), POSITIVE)
    lay_documents(workspace, MIXED, laid[MIXED][:1])
    with pytest.raises(WorkspaceError, match=r"quality/lists/news2016zh\.json was made from other documents"):
        selection.load(workspace, MIXED)
    with pytest.raises(WorkspaceError, match="made from other documents"):
        score_deciles(workspace, MIXED, 1)
    (found,) = lineage.documents(workspace, (MIXED,), name=laid[MIXED][0][0][0])
    assert found.score is None
    make(workspace)
    assert score_deciles(workspace, MIXED, 1)
    assert len(documents_out(selection.load(workspace, MIXED))) == len(rows(workspace, MIXED))


def test_books_that_do_not_balance_are_an_error(workspace: Workspace) -> None:
    counts = make(lay(workspace), POSITIVE).ledger.counts["datasets"]
    ledger = read_ledger(workspace.documents(MIXED))
    assert ledger
    own = counts[MIXED]
    lists.check_books(workspace.quality, {MIXED: ledger}, {MIXED: own})
    for wrong in ({"left_out_before": 1}, {"low_quality": {"train": 1}}, {"documents": {"train": 119}}):
        with pytest.raises(BooksError, match=MIXED):
            lists.check_books(workspace.quality, {MIXED: ledger}, {MIXED: own | wrong})


@pytest.mark.parametrize(
    ("positive", "values", "error", "says"),
    [
        ((), {}, WorkspaceError, "not said what good text is"),
        (("nowhere.jsonl",), {}, SourceError, "neither a dataset nor a file"),
        (("webtext2019zh",), {}, WorkspaceError, "webtext2019zh has no documents"),
        ((POSITIVE,), {"datasets": (POSITIVE,)}, WorkspaceError, "nothing is left out of a dataset of good text"),
        ((POSITIVE, MIXED, PLAIN), {}, WorkspaceError, "no text to compare"),
        (("few.txt",), {}, WorkspaceError, "3 positive texts to train on, and 20 are needed"),
        (("empty.jsonl",), {}, SourceError, "has no text"),
        (("few.txt",), {"fields": ("body",)}, SourceError, "has no text in the fields body"),
        (("few.pdf",), {}, SourceError, "format cannot be recognized"),
        (("broken.jsonl",), {}, SourceError, "broken.jsonl:1: expected a JSON value"),
        (("few.txt", "other/few.txt"), {}, SourceError, "another one has this name"),
        ((), {"model": Path("few.txt")}, SourceError, "few.txt is not a model"),
        ((), {"model": Path("nowhere")}, SourceError, "cannot be read"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, positive: tuple[str, ...],
    values: dict[str, Any], error: type[Exception], says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    for name, data in (
        ("few.txt", "一\n二\n三"), ("other/few.txt", "四"), ("empty.jsonl", '{"a": 1}'), ("broken.jsonl", "{"),
        ("few.pdf", "x"),
    ):  # fmt: skip
        (tmp_path / name).write_text(data, encoding="utf-8")
    lay(workspace)
    with pytest.raises(error, match=re.escape(says)) as caught:
        make(workspace, *positive, **values)
    assert "\n" not in str(caught.value)
    assert not (workspace.quality / "ledger.json").exists()
    assert not (workspace.quality / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"positive": ("a",), "model": Path("b")}, "--positive"),
        ({"positive": ("",)}, "--positive"),
        ({"fields": ("a",)}, "--field"),
        ({"positive": ("a",), "fields": ("",)}, "--field"),
        ({"alpha": 0.0}, "--alpha"),
        ({"alpha": float("nan")}, "--alpha"),
        ({"workers": -1}, "--workers"),
    ],
)
def test_settings_are_checked(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        QualityConfig(**values)
