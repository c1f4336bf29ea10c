"""What `corpus inspect` shows: the right documents, what differs, and nothing that commands a terminal."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents.stage import IngestConfig
from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.inspect import examples
from corpus.pipeline.terminal import console
from corpus.pipeline.workspace.layout import Workspace
from tests.support.documents import TRAIN, VALID
from tests.support.records import LayRaw, baike, lines

NAME = "baike2018qa"


@pytest.fixture
def ready(workspace: Workspace, lay_raw: LayRaw) -> Workspace:
    """Documents of which some were changed, masked or dropped."""
    records = [baike(n, answer=f"第{n}种做法是先看再动手，慢一点不要紧。") for n in range(300)]
    records += [baike(1000 + n, answer=f"<p>标签里的第{n}段话</p>") for n in range(30)]
    records += [baike(2000, answer="打电话到13900000000找小林就行了。"), baike(3000, answer="好" * 80)]
    lay_raw(NAME, {TRAIN: lines(records), VALID: lines([baike(n) for n in range(5000, 5020)])})
    ingest.run(IngestConfig(dataset=NAME, workers=1, piece_bytes=8_000), workspace)
    return workspace


def shown(workspace: Workspace, **settings: object) -> list[examples.Example]:
    return list(examples.sample(workspace, (NAME,), **settings))  # type: ignore[arg-type]


def test_all_states_are_shown_and_the_seed_decides(ready: Workspace) -> None:
    first = shown(ready, limit=12)
    assert set(Counter(entry.state for entry in first)) == {"kept", "changed", "dropped"}
    assert first == shown(ready, limit=12) != shown(ready, limit=12, seed=2)


@pytest.mark.parametrize(
    ("reason", "state", "ids"),
    [
        ("strip_tags", "changed", range(1000, 1030)),
        ("mobile_number", "changed", [2000]),
        ("repeated_characters", "dropped", [3000]),
    ],
)
def test_a_reason_shows_only_its_documents(ready: Workspace, reason: str, state: str, ids: list[int]) -> None:
    found = shown(ready, reason=reason, limit=5)
    assert 0 < len(found) <= 5
    assert {entry.state for entry in found} == {state}
    assert {int(entry.id.split("@")[0].removeprefix("qid_")) for entry in found} <= set(ids)


def test_a_masked_number_is_marked(ready: Workspace) -> None:
    (entry,) = shown(ready, reason="mobile_number")
    assert ("gone", "13900000000") in entry.pieces
    assert ("new", "[手机号]") in entry.pieces


def test_what_is_left_out_is_shown_against_what_stays(ready: Workspace, lay_raw: LayRaw) -> None:
    long = "".join(f"第{n * 37}条说的是{chr(0x4E00 + n * 211)}。" for n in range(20))
    records = [baike(1, title="同一件事", answer=long), baike(2, title="同一件事", answer=f"{long}完")]
    records += [baike(3, title="同一件事", answer=long), baike(4, title="另一件事", answer="与上面都不相同的一句话。")]
    lay_raw(NAME, {TRAIN: lines(records)})
    ingest.run(IngestConfig(dataset=NAME, workers=1), ready)
    dedup.run(dedup.DedupConfig(workers=1), ready)
    found = {entry.id.split("@")[0]: entry for entry in shown(ready, state="left-out")}
    assert set(found) == {"qid_2", "qid_3"}
    assert ("new", "完") in found["qid_2"].pieces
    assert found["qid_3"].before == found["qid_3"].after
    assert {entry.id.split("@")[0] for entry in shown(ready, state="kept")} == {"qid_1", "qid_4"}
    with pytest.raises(WorkspaceError, match="nothing to show"):
        shown(ready, state="kept", reason="near_duplicate")


def test_an_unknown_reason_names_those_there_are(ready: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="nonsense") as caught:
        shown(ready, reason="nonsense")
    assert "strip_tags" in caught.value.hint


def test_without_documents_it_says_what_to_do(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="no documents"):
        shown(workspace)


TEXTS = st.text(st.sampled_from("春夏秋冬，<p>\n a1"), max_size=60)


@given(TEXTS, TEXTS)
def test_marks_hold_both_texts(before: str, after: str) -> None:
    pieces = examples.marked(before, after)
    if not any(kind == "more" for kind, _ in pieces):
        assert "".join(text for kind, text in pieces if kind != "new") == before
        assert "".join(text for kind, text in pieces if kind != "gone") == after


def test_a_far_difference_is_in_sight() -> None:
    text = "很长的一段话，" * 400
    pieces = examples.marked(text + "旧", text + "新")
    assert ("gone", "旧") in pieces
    assert sum(len(piece) for _, piece in pieces) < 200


def test_text_that_was_there_all_along_is_not_marked_as_new() -> None:
    """Tags make the record longer than the document, so its first characters are a smaller part of it."""
    facts = [f"第{n}题：|输入 class{n * 31} strong[{n * 7}]，p = {n}" for n in range(60)]
    before = "".join(f"<p>&nbsp;</p>\n<li><code>{fact.replace('|', '&nbsp;')}</code></li>\n" for fact in facts)
    pieces = examples.marked(before, "\n".join(facts).replace("|", " "))
    assert {text.strip() for kind, text in pieces if kind == "new"} == {""}
    assert "第5题：" in "".join(text for kind, text in pieces if kind != "new")
    assert pieces[-1] == ("more", " ...")
    assert sum(len(text) for kind, text in pieces if kind != "new") <= 610


def test_a_text_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console.marked([("same", "甲\x1b[31m乙\u202e"), ("gone", "丙")])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "[-丙-]" in out
