"""Rankings: which answers are compared by literal tables, the books, the split by question, the reruns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from corpus.pipeline.cli.main import main
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents.stage import IngestConfig
from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.export import stage as export
from corpus.pipeline.inspect.status import survey
from corpus.pipeline.pack import ranking_partitions
from corpus.pipeline.pack import ranking_stage as ranking
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.pack.ranking_shard import pack_partition
from corpus.pipeline.pack.ranking_stage import RankingConfig
from corpus.pipeline.pack.rankings import Answer, Judged, Rules, judge
from corpus.pipeline.storage import removals
from corpus.pipeline.storage.row_shards import open_rows
from corpus.pipeline.workspace.layout import Workspace
from tests.support.documents import tree
from tests.support.packed import lay_tokenizer
from tests.support.records import LayRaw, lines

GIVEN = 'name = "mine"\nmin_length = 1\n[document]\nform = "ranking"\nsplit = "split"\n'
VOTED = (
    'name = "mine"\nmin_length = 1\n[document]\nform = "question"\ntitle = "q"\nanswer = "a"\nsplit = "split"\n'
    '[document.votes]\nquestion = "qid"\nscore = "star"\ntime = "n"\n'
)


def voted(*scores: tuple[int | None, int], texts: Sequence[str] = (), tokens: int = 5) -> list[Answer]:
    named = texts or [f"答{at}" for at in range(len(scores))]
    return [
        Answer(text=text, tokens=tokens, score=score, time=time)
        for text, (score, time) in zip(named, scores, strict=True)
    ]


def judged(given: Sequence[Answer], *, is_given: bool = False, **rules: Any) -> Judged:
    return judge(given, Rules(**rules), longest=20, is_given=is_given)


def test_the_better_answer_has_half_as_many_votes_again_and_is_the_later_one() -> None:
    found = judged(voted((12, 9), (8, 2), (7, 8), (5, 7)))
    assert (found.used, found.pairs) == ([0, 1, 2, 3], [(0, 1), (0, 2), (0, 3)])
    assert found.pairs_left_out == {"close_scores": 2, "better_is_older": 1}
    older = judged(voted((12, 1), (8, 2)))
    assert (older.used, older.left_out) == ([], {0: "in_no_pair", 1: "in_no_pair"})
    assert judged(voted((12, 1), (8, 2)), any_age=True).pairs == [(0, 1)]
    assert judged(voted((12, 9), (8, 2)), factor=2).pairs_left_out == {"close_scores": 1}


def test_no_vote_counts_as_one_so_that_one_vote_is_no_ratio() -> None:
    assert judged(voted((1, 9), (0, 2))).pairs_left_out == {"close_scores": 1}
    assert judged(voted((2, 9), (0, 2))).pairs == [(0, 1)]
    assert judged(voted((3, 9), (3, 2))).pairs_left_out == {"equal_scores": 1}


def test_every_answer_that_is_not_used_has_a_reason() -> None:
    answers = [
        *voted((9, 9), (1, 1), (None, 5), (9, 7), (8, 6), texts=["甲", "乙", "丙", "甲", ""]),
        Answer(text="长", tokens=21, score=50, time=50),
    ]
    found = judged(answers)
    assert found.used == [0, 1]
    assert found.left_out == {2: "no_score", 3: "same_text", 4: "empty", 5: "too_long"}
    assert judged(voted((9, 9))).left_out == {0: "single_answer"}


def test_most_answers_and_most_pairs_are_spread_over_the_ranking() -> None:
    answers = voted(*((3**power, power) for power in range(9)))
    few = judged(answers, answers=3)
    assert few.used == [8, 4, 0]
    assert set(few.left_out.values()) == {"too_many_answers"}
    found = judged(answers, pairs=4)
    assert found.pairs_left_out == {"too_many_pairs": 32}
    assert len(found.pairs) == 4
    assert {place for pair in found.pairs for place in pair} == set(range(len(found.used)))


def test_a_given_ranking_has_all_its_pairs() -> None:
    answers = [Answer(text=text, tokens=5, score=-place) for place, text in enumerate("甲乙丙丁")]
    assert judged(answers, is_given=True).pairs == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]


def made(workspace: Workspace, lay_raw: LayRaw, manifest: str, records: Sequence[dict[str, Any]]) -> None:
    path = workspace.root.parent / "mine.toml"
    path.write_text(manifest, encoding="utf-8")
    workspace.root.mkdir(exist_ok=True)
    workspace.add_manifest(path)
    lay_raw("mine", {"records.jsonl": lines(list(records))})
    ingest.run(IngestConfig(dataset="mine", workers=1), workspace)
    lay_tokenizer(workspace)


def shown(workspace: Workspace) -> dict[str, list[tuple[str, list[str], list[tuple[int, int]]]]]:
    """Question, answers and pairs of each split, as text."""
    decoder = Tokenizer.from_file(str(workspace.tokenizer / "tokenizer.json"))
    decoded: dict[str, list[tuple[str, list[str], list[tuple[int, int]]]]] = {}
    for split, rows in open_rows(workspace.rankings("mine")).items():
        for row in rows:
            texts = [decoder.decode(ids, skip_special_tokens=False) for ids in (row["question"], *row["answers"])]
            pairs = [(pair["better"], pair["worse"]) for pair in row["pairs"]]
            decoded.setdefault(split, []).append((texts[0], texts[1:], pairs))
    return decoded


def test_votes_on_documents(workspace: Workspace, lay_raw: LayRaw) -> None:
    def answer(qid: int, n: int, star: int, text: str, **others: Any) -> dict[str, Any]:
        return {"q": f"第{qid}问？", "a": text, "qid": qid, "star": star, "n": n} | others

    records = [
        answer(1, 1, 2, "雨"), answer(2, 1, 9, "只此一答"), answer(1, 5, 30, "因为春天的雨"), answer(1, 3, 9, "茶"),
        answer(3, 1, 4, "猫", split="test"), answer(3, 2, 40, "猫睡在暖气片上"), {"q": "无票？", "a": "有", "n": 1},
    ]  # fmt: skip
    made(workspace, lay_raw, VOTED, records)
    report = ranking.run(RankingConfig(dataset="mine", workers=1), workspace)
    end = "<|endoftext|>"
    assert shown(workspace) == {
        "train": [
            (
                "<|user|>第1问？<|assistant|>",
                [f"因为春天的雨{end}", f"茶{end}", f"雨{end}"],
                [(0, 1), (0, 2), (1, 2)],
            )
        ],
        "test": [("<|user|>第3问？<|assistant|>", [f"猫睡在暖气片上{end}", f"猫{end}"], [(0, 1)])],
    }
    counts = report.ledger.counts
    assert counts["answers"] == {"read": 7, "used": 5, "left_out": {"no_score": 1, "single_answer": 1}}
    assert counts["moved_documents"] == 1
    (sources,) = [row["sources"] for row in open_rows(workspace.rankings("mine"))["train"]]
    assert [source["document"] for source in sources] == [2, 3, 0]


@pytest.mark.parametrize(
    ("star", "used"),
    [
        (30, 2),
        ("30", 2),
        (30.0, 2),
        (-30, 0),
        ("--30", 0),
        ("9" * 30, 0),
        ("9" * 5000, 0),
        (30.5, 0),
        (True, 0),
        (None, 0),
    ],
)
def test_votes_that_are_no_number_leave_the_answer_out(
    workspace: Workspace, lay_raw: LayRaw, star: object, used: int
) -> None:
    """The votes and the clock stand in a nested object; the answers have their text in common."""
    names = {'"qid"': '"q"', '"star"': '"its.star"', '"n"': '"its.n"'}
    manifest = VOTED
    for name, other in names.items():
        manifest = manifest.replace(name, other)
    records = [
        {"q": "甲？", "a": "雨", "its": {"star": star, "n": 2}},
        {"q": "甲？", "a": "茶", "its": {"star": 10, "n": 1}},
    ]
    records += [{"q": "乙？", "a": text, "its": {"star": at, "n": at}} for at, text in ((3, "猫"), (9, "尾"))]
    made(workspace, lay_raw, manifest, records)
    answers = ranking.run(RankingConfig(dataset="mine", workers=1), workspace).ledger.counts["answers"]
    assert answers["used"] == 2 + used
    assert answers["read"] == answers["used"] + sum(answers["left_out"].values())


def test_the_same_question_in_other_writing_is_in_the_same_split(workspace: Workspace, lay_raw: LayRaw) -> None:
    records = [
        {"p": question, "r": [f"好{at}", f"坏{at}"], "split": split}
        for at, (question, split) in enumerate(
            (("臺灣在哪？", "train"), ("台湾 在哪?", "validation"), ("？？", "train"), ("！", "test"))
        )
    ]
    made(workspace, lay_raw, GIVEN + 'prompt = "p"\nranking = "r"\n', records)
    assert ranking.run(RankingConfig(dataset="mine", workers=1), workspace).ledger.counts["moved_documents"] == 1
    rows = shown(workspace)
    assert {split: len(each) for split, each in rows.items()} == {"train": 1, "validation": 2, "test": 1}


@pytest.mark.parametrize(
    ("roles", "record", "question"),
    [
        ('ranking = "r"\n', {"r": ["雨", "茶", "猫"]}, ""),
        ('ranking = "r"\nprompt = "p"\n', {"p": "问？", "r": ["雨", "茶", "猫"]}, "<|user|>问？<|assistant|>"),
        ('chosen = "c"\nrejected = "r"\nprompt = "p"\n', {"p": "问？", "c": "雨", "r": "茶"},
         "<|user|>问？<|assistant|>"),
        (
            'chosen = "c"\nrejected = "r"\n',
            {"c": [{"role": "user", "content": "问？"}, {"role": "assistant", "content": "雨"}],
             "r": [{"role": "user", "content": "问？"}, {"role": "assistant", "content": "茶"}]},
            "<|user|>问？<|assistant|>",
        ),
        (
            'turns = "messages"\nchosen = "c"\nrejected = "r"\n',
            {
                "messages": [{"role": "system", "content": "短答"}, {"role": "user", "content": "一？"},
                             {"role": "assistant", "content": "二"}, {"role": "user", "content": "三？"}],
                "c": {"role": "assistant", "content": "雨"}, "r": [{"from": "gpt", "value": "茶"}],
            },
            "<|user|>短答\n一？<|assistant|>二<|endoftext|><|user|>三？<|assistant|>",
        ),
    ],
)  # fmt: skip
def test_given_rankings(
    workspace: Workspace, lay_raw: LayRaw, roles: str, record: dict[str, Any], question: str
) -> None:
    made(workspace, lay_raw, GIVEN + roles, [record, record | {"split": "validation"}])
    report = ranking.run(RankingConfig(dataset="mine", workers=1), workspace)
    texts = ["雨", "茶", "猫"][: report.ledger.counts["answers"]["used"] // 2]
    ranked = (question, [f"{text}<|endoftext|>" for text in texts], [(0, 1), (0, 2), (1, 2)] if texts[2:] else [(0, 1)])
    assert shown(workspace) == {"validation": [ranked, ranked]}  # one question is in one split
    assert report.ledger.counts["moved_documents"] == 1


def test_records_that_are_no_ranking_are_rejected_with_the_reason(workspace: Workspace, lay_raw: LayRaw) -> None:
    roles = 'prompt = "p"\nranking = "r"\n'
    good = [{"p": f"问{at}？", "r": ["雨", f"茶{at}"]} for at in range(40)]
    made(workspace, lay_raw, GIVEN + roles, [*good, {"p": "问？", "r": ["一"]}, {"p": "问？", "r": ["一", 2]}])
    rejected = json.loads((workspace.documents("mine") / "ledger.json").read_text())["counts"]["dropped"]
    assert rejected == {"missing_field": 1, "wrong_type": 1}


def test_two_conversations_that_differ_before_their_answers_are_no_ranking(
    workspace: Workspace, lay_raw: LayRaw
) -> None:
    def talk(question: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": question}, {"role": "assistant", "content": f"答{question}"}]

    records: list[dict[str, Any]] = [{"c": talk("甲？"), "r": talk("乙？")}, {"c": "雨", "r": "茶"}]
    made(workspace, lay_raw, GIVEN + 'chosen = "c"\nrejected = "r"\n', records)
    counts = json.loads((workspace.documents("mine") / "ledger.json").read_text())["counts"]
    assert (counts["dropped"], counts["documents"]) == ({"wrong_type": 1}, 1)


def test_reruns_partitions_and_the_removal_list(
    workspace: Workspace, lay_raw: LayRaw, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [{"id": f"r{at}", "r": [f"好{at}", f"坏{at}"]} for at in range(60)]
    made(workspace, lay_raw, GIVEN + 'ranking = "r"\nid = ["id"]\n', records)
    config = RankingConfig(dataset="mine", workers=1)
    first = ranking.run(config, workspace)
    before = tree(first.folder)
    assert ranking.run(config, workspace).skipped
    (first.folder / "train" / "data-00000.arrow").unlink()
    assert tree(ranking.run(config, workspace).folder) == before
    several = sorted(map(str, shown(workspace)["train"]))
    monkeypatch.setattr(ranking_partitions, "PARTITION_CHARACTERS", 40)
    divided = ranking.run(RankingConfig(dataset="mine", workers=2, max_pairs=1), workspace)
    assert len(list((divided.folder / "train").glob("*.arrow"))) > 3
    assert sorted(map(str, shown(workspace)["train"])) == several
    assert pack.behind(workspace) == []
    name = pq.read_table(workspace.documents("mine") / "part-00000.parquet")["id"][7].as_py()
    (workspace.root / removals.LIST).write_text(f"mine:{name}\n")
    assert pack.behind(workspace) == ["corpus pack --form ranking --dataset mine"]
    assert ranking.run(config, workspace).ledger.counts["answers"]["used"] == 118


def test_an_interrupted_run_keeps_the_partitions_that_have_a_receipt(
    workspace: Workspace, lay_raw: LayRaw, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(workspace, lay_raw, GIVEN + 'ranking = "r"\n', [{"r": [f"好{at}", f"坏{at}"]} for at in range(60)])
    monkeypatch.setattr(ranking_partitions, "PARTITION_CHARACTERS", 100)
    config, packed = RankingConfig(dataset="mine", workers=1), list[int]()
    folder = ranking.run(config, workspace).folder
    before, partitions = tree(folder), ranking_partitions.count(workspace.documents("mine"))

    def interrupted(partition: ranking_partitions.Partition, **settings: Any) -> Any:
        packed.append(partition.number)
        if packed == [0, 1]:
            raise KeyboardInterrupt
        return pack_partition(partition, **settings)

    monkeypatch.setattr("corpus.pipeline.pack.ranking_stage.pack_partition", interrupted)
    (folder / "ledger.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        ranking.run(config, workspace)
    assert not list(folder.rglob(".*.tmp"))
    assert not (folder / "ledger.json").exists()
    packed.clear()
    assert tree(ranking.run(config, workspace).folder) == before
    assert packed == list(range(1, partitions))


def test_what_cannot_be_ranked_is_named(workspace: Workspace, lay_raw: LayRaw) -> None:
    made(workspace, lay_raw, VOTED, [{"q": "问？", "a": f"答{at}", "qid": 1, "star": 3, "n": at} for at in range(3)])
    with pytest.raises(WorkspaceError, match="no two answers that can be compared: in_no_pair 3, equal_scores 3"):
        ranking.run(RankingConfig(dataset="mine", workers=1), workspace)


def test_rankings_are_not_packed_as_text(
    workspace: Workspace, lay_raw: LayRaw, capsys: pytest.CaptureFixture[str]
) -> None:
    made(workspace, lay_raw, GIVEN + 'ranking = "r"\n', [{"r": ["好", "坏"]}])
    assert {row.area for row in survey(workspace) if row.state == "missing"} == {"dedup", "ranking"}
    with pytest.raises(SystemExit):
        main(["ingest", "--workspace", str(workspace.root), "--dataset", "mine", "--no-dedup"])
    assert "next: corpus pack --form ranking --dataset mine" in capsys.readouterr().out
    with pytest.raises(WorkspaceError, match="worse answers are not to be learnt"):
        pack.run(pack.PackConfig(dataset="mine", workers=1), workspace)
    with pytest.raises(WorkspaceError, match="mine holds rankings, which no export has"):
        export.run(export.ExportConfig(format="jsonl", place=workspace.root.parent / "out"), workspace)
    with pytest.raises(SystemExit) as ended:
        main(["pack", "--min-ratio", "2", "--workspace", str(workspace.root)])
    assert ended.value.code == 2
    with pytest.raises(SystemExit) as ended:
        main(["pack", "--form", "ranking", "--seq-length", "64", "--workspace", str(workspace.root)])
    assert ended.value.code == 0


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"min_ratio": 0.5}, "--min-ratio must be at least 1"), ({"max_answers": 1}, "--max-answers must be"),
        ({"max_pairs": 0}, "--max-pairs must be"), ({"seq_length": 3}, "--seq-length must be"),
        ({"workers": -1}, "--workers must not"),
    ],
)  # fmt: skip
def test_wrong_settings(setting: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        RankingConfig(dataset="mine", **setting)
