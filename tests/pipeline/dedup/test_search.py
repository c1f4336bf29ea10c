"""Duplicates: what is found, and who stays."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.dedup.clusters import MAX_ROUNDS
from corpus.pipeline.dedup.stage import EXACT, NEAR
from corpus.pipeline.signatures import minhash
from corpus.pipeline.storage.document_shards import split_ref
from corpus.pipeline.templates import TRANSLATE
from corpus.pipeline.text.normalize import fold
from corpus.pipeline.workspace.layout import Workspace
from tests.benchmarks.duplicates import KINDS, lay_documents, plant, similarity
from tests.support.copies import NOODLES, RAIN, make, random_texts, removed, rows

LAMPS = "山那边的灯一盏一盏亮起来，船也该回来了，他把书合上，听见窗外有人在喊卖豆腐。"
TRADITIONAL = (
    "春天的雨下了一整夜，早上院子裡的石板還是濕的，臺階邊上落下幾片昨天開的花；"
    "他把傘收起來靠在門後，回屋裡燒了一壺水，想到今年的新茶什麼時候能寄到。"
)


def gone(workspace: Workspace, dataset: str = "wiki2019zh") -> list[tuple[str, str, str]]:
    return [(row["id"], row["reason"], row["detail"]) for row in removed(workspace, dataset)]


def test_what_folds_alike_is_equal(workspace: Workspace) -> None:
    wide = "Ｔｅａ　ｉｓ　茶，　ａｎｄ　茶　ｃａｍｅ　ｂｙ　ｓｅａ！"
    lay_documents(
        workspace,
        "wiki2019zh",
        [
            rows(RAIN, NOODLES, TRADITIONAL, RAIN.replace("，", " "), LAMPS),
            rows(wide, "Tea is 茶, and 茶 came by sea.", prefix="b"),
        ],
    )
    report = make(workspace)
    assert gone(workspace) == [
        ("2", EXACT, "wiki2019zh:0"),
        ("3", EXACT, "wiki2019zh:0"),
        ("b1", EXACT, "wiki2019zh:b0"),
    ]
    first, _, last = removed(workspace)
    assert (first["document"], first["start"], first["end"], first["whole"]) == (2, 0, len(TRADITIONAL), True)
    assert (split_ref(last["document"]), last["split"]) == ((1, 1), "train")
    counts = report.ledger.counts
    assert counts["datasets"] == {
        "wiki2019zh": {"documents": {"train": 7}, EXACT: {"train": 3}, NEAR: {}},
    }
    assert (counts["clusters"], counts["largest_clusters"], counts["candidate_pairs"]) == (2, [3, 2], 0)


def test_near_duplicates_name_the_one_that_stays_and_how_alike_they_are(workspace: Workspace) -> None:
    near = RAIN.replace("昨天", "今天")
    lay_documents(workspace, "wiki2019zh", [rows(NOODLES, RAIN, LAMPS, near, RAIN + "！")])
    make(workspace)
    assert gone(workspace) == [("3", NEAR, f"wiki2019zh:1 {similarity(RAIN, near):.3f}"), ("4", EXACT, "wiki2019zh:1")]
    assert make(workspace, near=False).reasons == ("near was true and is false", "threshold was 0.7 and is unset")
    assert gone(workspace) == [("4", EXACT, "wiki2019zh:1")]
    make(workspace, threshold=0.95)
    assert gone(workspace) == [("4", EXACT, "wiki2019zh:1")]


def test_across_splits_the_training_copy_goes(workspace: Workspace) -> None:
    shard = [
        ("train", "train", RAIN),
        ("near", "train", RAIN.replace("昨天", "今天")),
        ("validation", "validation", TRADITIONAL),
        ("lamps", "train", LAMPS),
        ("noodles", "validation", NOODLES),
    ]
    lay_documents(workspace, "wiki2019zh", [shard, [("noodles test", "test", NOODLES)]])
    counts = make(workspace).ledger.counts["datasets"]["wiki2019zh"]
    assert [(name, detail.split(" 0.")[0]) for name, _, detail in gone(workspace)] == [
        ("train", "wiki2019zh:validation"),
        ("near", "wiki2019zh:validation"),
        ("noodles", "wiki2019zh:noodles test"),
    ]
    assert counts[EXACT] == {"train": 1, "validation": 1}
    assert counts[NEAR] == {"train": 1}


def test_across_datasets_the_first_stays(workspace: Workspace) -> None:
    lay_documents(workspace, "webtext2019zh", [rows(LAMPS, RAIN, prefix="web")])
    lay_documents(workspace, "baike2018qa", [[], rows(NOODLES, RAIN, prefix="baike")])
    lay_documents(workspace, "wiki2019zh", [rows(LAMPS, prefix="wiki")])
    report = make(workspace)
    assert gone(workspace, "wiki2019zh") == gone(workspace, "baike2018qa") == []
    assert gone(workspace, "webtext2019zh") == [
        ("web0", EXACT, "wiki2019zh:wiki0"),
        ("web1", EXACT, "baike2018qa:baike1"),
    ]
    assert report.ledger.counts["pairs"] == {"webtext2019zh": {"wiki2019zh": 1, "baike2018qa": 1}}
    assert pq.read_table(workspace.dedup / dedup.CLUSTERS).to_pylist()[0] == {
        "cluster": 0,
        "dataset": "wiki2019zh",
        "document": 0,
        "id": "wiki0",
        "split": "train",
        "kept": True,
        "reason": None,
        "similarity": 1.0,
    }
    make(workspace, datasets=("webtext2019zh", "baike2018qa"))
    assert gone(workspace, "webtext2019zh") == [("web1", EXACT, "baike2018qa:baike1")]
    assert not (workspace.dedup / "lists" / "wiki2019zh.json").exists()


def test_what_is_too_short_or_nothing_is_kept(workspace: Workspace) -> None:
    texts = (
        "好的呀",
        "好的呢",
        "好的呀！",
        "",
        "。！",
        "，，，",
        "一二三四五",
        "一二三四六",
        f"{TRANSLATE}tea, 茶",
        f"{TRANSLATE}sea, 海",
    )
    lay_documents(workspace, "translation2019zh", [rows(*texts)])
    counts = make(workspace).ledger.counts
    assert gone(workspace, "translation2019zh") == [("2", EXACT, "translation2019zh:0")]
    assert counts["too_short_to_shingle"] == 8


def test_the_frame_makes_no_pair_alike(workspace: Workspace) -> None:
    texts = [
        f"{TRANSLATE}Good morning., 早上好。",
        f"{TRANSLATE}Good evening., 晚上好。",
        f"{TRANSLATE}Good  morning., 早上好",
    ]
    lay_documents(workspace, "translation2019zh", [rows(*texts)])
    make(workspace, threshold=0.5)
    assert gone(workspace, "translation2019zh") == [("2", EXACT, "translation2019zh:0")]


def test_a_large_group_is_linear(workspace: Workspace) -> None:
    count = 20_000
    texts = [
        f"订单已经签收，感谢您的惠顾，欢迎下次再来选购本店的各种茶叶和点心，如有问题请在七天之内与客服联系，编号{number:05d}"
        for number in range(count)
    ]
    lay_documents(workspace, "webtext2019zh", [rows(*texts[:9000]), rows(*texts[9000:])])
    counts = make(workspace).ledger.counts
    assert counts["datasets"]["webtext2019zh"][NEAR]["train"] == count - 1
    assert counts["candidate_pairs"] < 2 * count
    fewer = 4000
    lay_documents(workspace, "webtext2019zh", [rows(*texts[:fewer])])
    counts = make(workspace, threshold=1.0).ledger.counts
    assert counts["verified_pairs"] == 0
    assert fewer < counts["candidate_pairs"] <= minhash.BANDS * MAX_ROUNDS * fewer


def test_planted_copies_are_found_and_nothing_else(workspace: Workspace) -> None:
    random = np.random.default_rng(5)
    texts = [
        "，".join(random_texts(6, 30, number)) + "。" + random_texts(1, 60, number + 9000)[0] for number in range(390)
    ]
    copies = plant(texts, random)
    lay_documents(workspace, "news2016zh", [rows(*texts)])
    lay_documents(workspace, "demo", [[(str(place), "train", text) for _, place, text in copies]])
    make(workspace)
    found = {row["id"]: row["detail"].split()[0] for row in removed(workspace, "demo")}
    alike = {str(place): similarity(texts[place], text) for _, place, text in copies}
    near = [name for name, value in alike.items() if value >= dedup.THRESHOLD]
    assert len(near) > 20 * len(KINDS) // 2
    assert sum(found.get(name) == f"news2016zh:{name}" for name in near) >= 0.98 * len(near)
    assert all(found.get(name) for name in near if alike[name] >= 0.87)
    assert all(kept == f"news2016zh:{name}" and alike[name] >= dedup.THRESHOLD for name, kept in found.items())
    assert removed(workspace, "news2016zh") == []


def brute_force(texts: Sequence[str], threshold: float) -> set[tuple[int, int]]:
    return {
        (one, other)
        for one, other in itertools.combinations(range(len(texts)), 2)
        if fold(texts[one])
        and (fold(texts[one]) == fold(texts[other]) or similarity(texts[one], texts[other]) >= threshold)
    }


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_what_is_left_holds_no_likes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    base = random_texts(3, 40, data.draw(st.integers(0, 1000)))
    edits = st.tuples(st.integers(0, 2), st.integers(0, 39), st.sampled_from("，春夏秋冬"), st.integers(0, 40))
    made = [
        base[which][:at] + other + base[which][at + 1 : end]
        for which, at, other, end in data.draw(st.lists(edits, max_size=14))
    ]
    shards = [made[: len(made) // 2], made[len(made) // 2 :]]
    workspace = Workspace(tmp_path_factory.mktemp("made"))
    lay_documents(workspace, "demo", [rows(*shards[0]), rows(*shards[1], prefix="b")])
    make(workspace)
    rest, pairs = dict(enumerate(made)), brute_force(made, dedup.THRESHOLD)
    for row in removed(workspace, "demo"):
        shard, line = split_ref(row["document"])
        place = line + shard * len(shards[0])
        del rest[place]
        name = row["detail"].removeprefix("demo:").split()[0]
        kept = int(name.removeprefix("b")) + len(shards[0]) * name.startswith("b")
        assert (kept, place) in pairs
    left = {(one, other) for one, other in pairs if one in rest and other in rest}
    assert not {pair for pair in left if similarity(made[pair[0]], made[pair[1]]) >= 0.9}
    assert len(left) <= 1 + len(pairs) // 20


def test_one_long_document(workspace: Workspace) -> None:
    (long,) = random_texts(1, 1_000_000)
    lay_documents(
        workspace, "news2016zh", [rows(RAIN, long, long[:650_000], NOODLES, long[: 1 << 16] + "换" + long[1 << 16 :])]
    )
    make(workspace)
    assert [(name, detail) for name, _, detail in gone(workspace, "news2016zh")] == [("4", "news2016zh:1 1.000")]
