"""The report: its figures are the ledgers', and no text of a corpus can do anything in it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from corpus.pipeline.report import build, examples, facts
from corpus.pipeline.report.charts import bars, lines
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger
from tests.support.documents import Listener
from tests.support.report import Tags, check_figures, numbers


def test_figures_are_those_of_the_ledgers(filled: Workspace, path: Path) -> None:
    shown, total = numbers(path), 0
    for name in ("baike2018qa", "translation2019zh"):
        total += check_figures(shown, filled, name)
    assert shown["total.records"] == total
    assert shown["baike2018qa.contaminated"] == 1
    found = read_ledger(filled.dedup)
    assert found
    assert shown["pairs.baike2018qa.baike2018qa"] == found.counts["pairs"]["baike2018qa"]["baike2018qa"] >= 3
    run = read_ledger(filled.models / "small")
    assert run
    assert shown["small.parameters"] == run.counts["parameters"]
    assert shown["small.tokens"] == run.counts["tokens"]
    assert '<span class="prompt">先想</span>' in path.read_text(encoding="utf-8")


def test_the_books_of_a_dataset_balance(filled: Workspace) -> None:
    for each in facts.gather(filled).datasets:
        assert each.records == each.documents + sum(each.dropped.values())
        assert each.documents == each.used + sum(each.left_out.values())
        assert sum(split.get(key, 0) for split in each.splits.values() for key in ("tokens", "padding")) == each.slots


def test_texts_of_a_corpus_are_only_text(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tags = Tags(text).tags
    kinds = [own.get("type") for tag, own in tags if tag == "script"]
    assert kinds == ["application/json", None]
    assert not [tag for tag, _ in tags if tag in {"img", "link", "iframe", "object", "embed", "base"}]
    assert not [own for _, own in tags if "style" in own or any(name.startswith("on") for name in own)]
    assert not [own for _, own in tags if re.match(r"(?!#|application)", own.get("href") or own.get("src") or "#")]
    assert "document.title='taken'" in text.replace("&#39;", "'")  # it is there, to be read
    assert "\u202e" not in text
    assert "⟨202E⟩" in text
    assert len(text) < 2_000_000  # in spite of a line of a million characters
    assert "长" * 3000 not in text


def test_the_policy_names_what_is_in_the_page(path: Path) -> None:
    (policy,) = [own["content"] for tag, own in Tags(path.read_text(encoding="utf-8")).tags if "http-equiv" in own]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_equal_workspaces_and_seeds_give_equal_pages(filled: Workspace, path: Path) -> None:
    first = path.read_bytes()
    assert build.run(filled, seed=2).read_bytes() != first
    assert build.run(filled).read_bytes() == first


@pytest.mark.parametrize(
    "left", [(), ("raw",), ("raw", "documents"), ("tokenizer",), ("models", "packed", "chat", "dedup")]
)
def test_a_workspace_that_holds_only_some_has_a_report_too(
    filled: Workspace, tmp_path: Path, left: tuple[str, ...]
) -> None:
    part = Workspace(tmp_path / "part")
    shutil.copytree(filled.root, part.root, ignore=shutil.ignore_patterns(".lock*", "report"))
    for area in left or ("raw", "documents", "tokenizer", "models", "packed", "chat", "dedup", "decontaminate"):
        shutil.rmtree(part.root / area)
    text = build.run(part).read_text(encoding="utf-8")
    assert ("no documents yet" in text) == (not left or "documents" in left)
    assert ('data-state="dropped"' in text) == (bool(left) and "documents" not in left)
    assert ('data-state="changed"' in text) == (bool(left) and "raw" not in left)


def test_it_can_be_made_while_another_command_writes(filled: Workspace) -> None:
    with filled.writing("train"):
        assert build.run(filled).is_file()


def test_half_a_line_of_a_run_at_work_is_passed_over(filled: Workspace, tmp_path: Path) -> None:
    part = Workspace(tmp_path / "part")
    shutil.copytree(filled.root, part.root, ignore=shutil.ignore_patterns(".lock*"))
    folder = part.models / "small"
    (folder / "ledger.json").unlink()
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 9, "lo')
    (run,) = facts.gather(part).runs
    assert not run.counts
    assert run.points("loss")
    assert "not finished" in build.run(part).read_text(encoding="utf-8")


def test_runs_of_any_name_and_damaged_figures_are_shown(filled: Workspace, tmp_path: Path) -> None:
    part = Workspace(tmp_path / "part")
    shutil.copytree(filled.root, part.root, ignore=shutil.ignore_patterns(".lock*"))
    shutil.copytree(part.models / "small", part.models / "a\\slash \"(x)'")
    (part.models / "odd").mkdir()
    (part.models / "odd" / "run.json").write_text('{"config": null}')
    (part.models / "odd" / "samples.jsonl").write_text('{"step": 1}\n')
    figures = [
        '{"step": 1, "loss": NaN}',
        '{"step": 2, "loss": 1e308}',
        '{"step": 3, "loss": Infinity}',
        '{"step": 4, "loss": 2}',
    ]
    (part.models / "odd" / "metrics.jsonl").write_text("\n".join(figures))
    text = build.run(part).read_text(encoding="utf-8")
    assert "a\\slash" in text
    assert facts.gather(part).runs[1].points("loss") == [(4, 2)]


@pytest.mark.parametrize("bytes_left", [0, 700])
def test_a_damaged_shard_of_rows_is_named(filled: Workspace, tmp_path: Path, bytes_left: int) -> None:
    part = Workspace(tmp_path / "part")
    shutil.copytree(filled.root, part.root, ignore=shutil.ignore_patterns(".lock*"))
    for path in part.packed("baike2018qa").rglob("data-*.arrow"):
        path.write_bytes(path.read_bytes()[:bytes_left])
    listener = Listener()
    text = build.run(part, progress=listener).read_text(encoding="utf-8")
    assert any("data-00000.arrow has " in said for said in listener.said)
    assert "data-00000.arrow has " in text
    assert "translation2019zh.records" in text


def test_broken_ledgers_do_not_end_the_report(filled: Workspace, tmp_path: Path) -> None:
    part = Workspace(tmp_path / "part")
    shutil.copytree(filled.root, part.root, ignore=shutil.ignore_patterns(".lock*", "models"))
    broken = [
        f"{area}/ledger.json" for area in ("dedup", "tokenizer", "documents/baike2018qa", "packed/translation2019zh")
    ]
    for name in broken:
        (part.root / name).write_text('{"schema": 7}')
    listener = Listener()
    text = build.run(part, progress=listener).read_text(encoding="utf-8")
    assert all(f"{name} is not a ledger" in said for name, said in zip(broken, listener.said, strict=True))
    assert all(f"{name} is not a ledger" in text for name in broken)
    assert "baike2018qa.records" not in text
    assert "translation2019zh.records" in text


def test_a_picture_has_its_numbers_and_its_words() -> None:
    assert not bars("k", "lost", {})
    (chart,) = bars("k", "lost", {"too_short": 823, "a<b>": 2}, whole=1000, logarithmic=True)
    assert chart.rows == [("too_short", "823 · 82.30%"), ("a<b>", "2 · 0.20%")]
    assert 'role="img"' in chart.svg
    assert "too_short 823" in chart.svg
    assert "a&lt;b&gt;" in chart.svg
    assert "<b>" not in chart.svg
    assert "style" not in chart.svg
    assert "#" not in re.sub(r'(href="#|url\(#)', "", chart.svg)  # every colour is a class


def test_names_of_bars_are_in_both_languages() -> None:
    (chart,) = bars("k", "classes_chart", {"Han": 9, "blanks": 2}, named=True)
    assert 'data-zh="汉字"' in chart.svg
    assert ">Han</text>" in chart.svg
    assert 'data-zh="空白: 2"' in chart.svg
    assert "汉字 9, 空白 2" in chart.svg
    (plain,) = bars("k", "lost", {"blanks": 2})
    assert "空白" not in plain.svg


def test_a_curve_of_one_point_is_drawn() -> None:
    (chart,) = lines("k", "loss_chart", {"loss": [(1, 2.0)]})
    assert "<path" in chart.svg


def test_classes_of_characters() -> None:
    assert examples.class_of("㐀") == "Han"
    assert examples.class_of("〇") == "Han"
    assert examples.class_of("Ａ") == "Latin"
    assert examples.class_of("か") == "other_letters"
    assert examples.class_of("\u200b") == "other"
