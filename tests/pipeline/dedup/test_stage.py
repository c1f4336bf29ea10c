"""Duplicates: what is found, who stays, the books, the reruns."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus.pipeline.dedup import signatures
from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.dedup.clusters import MAX_ROUNDS
from corpus.pipeline.dedup.stage import EXACT, NEAR, DedupConfig
from corpus.pipeline.errors import BooksError, DamageError, WorkspaceError
from corpus.pipeline.progress import Progress
from corpus.pipeline.storage import selection
from corpus.pipeline.storage.document_shards import REMOVED_SCHEMA, document_ref, read_part, split_ref
from corpus.pipeline.templates import TRANSLATE
from corpus.pipeline.text.normalize import fold
from corpus.pipeline.workspace.layout import Workspace
from tests.benchmarks.duplicates import KINDS, Row, lay_documents, plant, similarity
from tests.support.documents import Listener, tree

RAIN = (
    "春天的雨下了一整夜，早上院子里的石板还是湿的，台阶边上落下几片昨天开的花；"
    "他把伞收起来靠在门后，回屋里烧了一壶水，想到今年的新茶什么时候能寄到。"
)
NOODLES = "面要煮三分钟，水开之后再加一碗凉水，等它第二次滚起来就可以盛出来了。"
LAMPS = "山那边的灯一盏一盏亮起来，船也该回来了，他把书合上，听见窗外有人在喊卖豆腐。"
TRADITIONAL = (
    "春天的雨下了一整夜，早上院子裡的石板還是濕的，臺階邊上落下幾片昨天開的花；"
    "他把傘收起來靠在門後，回屋裡燒了一壺水，想到今年的新茶什麼時候能寄到。"
)
HAN = np.arange(0x4E00, 0x9000, dtype=np.uint32)


def rows(*texts: str, split: str = "train", prefix: str = "") -> list[Row]:
    return [(f"{prefix}{number}", split, text) for number, text in enumerate(texts)]


def make(workspace: Workspace, progress: Progress | None = None, **settings_: Any) -> Any:
    return dedup.run(DedupConfig(**({"workers": 1} | settings_)), workspace, progress=progress or Progress())


def removed(workspace: Workspace, dataset: str = "wiki2019zh") -> list[dict[str, Any]]:
    table = pq.read_table(workspace.dedup / f"{dataset}.parquet")
    assert table.schema.equals(REMOVED_SCHEMA)
    return list(table.to_pylist())


def gone(workspace: Workspace, dataset: str = "wiki2019zh") -> list[tuple[str, str, str]]:
    return [(row["id"], row["reason"], row["detail"]) for row in removed(workspace, dataset)]


def random_texts(count: int, length: int, seed: int = 0) -> list[str]:
    codes = HAN[np.random.default_rng(seed).integers(0, len(HAN), (count, length))]
    return [row.astype("<u4").tobytes().decode("utf-32-le") for row in codes]


def sample(seed: int = 3) -> dict[str, list[list[Row]]]:
    """Three datasets in shards, with copies within and across them, and their splits."""
    random = np.random.default_rng(seed)
    texts = [f"{text}。{text[::-1]}" for text in random_texts(160, 70, seed)]
    copies = plant(texts[:65], random)
    every = [*texts, *[text for _, _, text in copies], *texts[100:130], "", "。！", "好的", "好的。"]
    order = random.permutation(len(every))
    names = ("wiki2019zh", "baike2018qa", "demo")
    splits = ("train", "train", "train", "validation", "test")
    laid: dict[str, list[list[Row]]] = {name: [[] for _ in range(4)] for name in names}
    for place, which in enumerate(order.tolist()):
        name = names[place % 3]
        laid[name][place // 3 % 4].append((f"{name} {which}", splits[which % 5], every[which]))
    return laid


def lay(workspace: Workspace, laid: dict[str, list[list[Row]]]) -> Workspace:
    for name, shards in laid.items():
        lay_documents(workspace, name, shards)
    return workspace


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
    assert make(workspace, near=False).reasons == ("near was true and is false", "threshold was 0.8 and is unset")
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
    assert not (workspace.dedup / "wiki2019zh.parquet").exists()


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
    assert fewer < counts["candidate_pairs"] <= len(signatures.BANDS) * MAX_ROUNDS * fewer


def test_workers_order_and_interruption_change_no_byte(tmp_path: Path) -> None:
    laid = sample()
    trees = []
    for number, workers in enumerate((1, 2)):
        workspace = lay(Workspace(tmp_path / str(number)), dict(reversed(laid.items())) if number else laid)
        report = make(workspace, workers=workers)
        trees.append(tree(workspace.dedup))
    assert trees[0] == trees[1]
    assert sum(count for part in report.ledger.counts["datasets"].values() for count in part[NEAR].values()) > 20
    for missing in ("ledger.json", "keys/demo/part-00002.parquet", "clusters.parquet", "keys/wiki2019zh"):
        path = workspace.dedup / missing
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        (workspace.dedup / ".wiki2019zh.parquet.77.tmp").write_bytes(b"half")
        assert not make(workspace, workers=1).skipped or missing.startswith("keys")
        assert tree(workspace.dedup).keys() >= {"wiki2019zh.parquet", "demo.parquet", "clusters.parquet"}
    (workspace.dedup / "ledger.json").unlink()
    make(workspace)
    assert tree(workspace.dedup) == trees[0]
    assert all(str(tmp_path).encode() not in data for data in trees[0].values())


def test_shards_in_another_order_make_the_same_clusters(tmp_path: Path) -> None:
    found = []
    for number, turn in enumerate((1, -1)):
        workspace = Workspace(tmp_path / str(number))
        lay(workspace, {name: shards[::turn] for name, shards in sample().items()})
        make(workspace)
        clusters: dict[int, set[str]] = {}
        for row in pq.read_table(workspace.dedup / dedup.CLUSTERS).to_pylist():
            clusters.setdefault(row["cluster"], set()).add(row["id"])
        found.append(sorted(map(sorted, clusters.values())))
    assert found[0] == found[1]


def stamps(workspace: Workspace) -> dict[str, int]:
    folder = workspace.dedup / "keys"
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}


def test_another_dataset_or_shard_costs_only_its_own_keys(workspace: Workspace) -> None:
    laid = sample()
    lay(workspace, {name: laid[name] for name in ("wiki2019zh", "demo")})
    assert make(workspace).reasons == ()
    assert make(workspace).skipped
    before = stamps(workspace)
    assert len(before) == 8
    lay(workspace, {"baike2018qa": laid["baike2018qa"]})
    listener = Listener()
    report = make(workspace, listener)
    assert "input documents/baike2018qa/ledger.json is new" in report.reasons
    assert "dedup: the keys of 8 of 12 shards are kept" in listener.said
    after = stamps(workspace)
    assert {name: after[name] for name in before} == before
    laid["demo"][1].append(("more", "train", RAIN))
    lay(workspace, {"demo": laid["demo"][:3]})
    make(workspace)
    assert {name for name, stamp in stamps(workspace).items() if stamp != after[name]} == {"demo/part-00001.parquet"}
    assert stamps(workspace).keys() == after.keys() - {"demo/part-00003.parquet"}
    damaged = workspace.dedup / "keys" / "demo" / "part-00000.parquet"
    data = bytearray(damaged.read_bytes())
    data[200] ^= 1
    damaged.write_bytes(data)
    whole = tree(workspace.dedup)
    (workspace.dedup / "ledger.json").unlink()
    make(workspace)
    assert tree(workspace.dedup) | {"keys/demo/part-00000.parquet": b""} == whole | {
        "keys/demo/part-00000.parquet": b""
    }
    assert damaged.read_bytes() != data


def test_a_killed_run_goes_on(workspace: Workspace) -> None:
    lay_documents(workspace, "wiki2019zh", [rows(*random_texts(6000, 120, number)) for number in range(12)])
    command = (
        "from pathlib import Path; from corpus.pipeline import dedup\n"
        "from corpus.pipeline.workspace.layout import Workspace\n"
        f"dedup.run(dedup.DedupConfig(workers=1), Workspace(Path({str(workspace.root)!r})))"
    )
    child = subprocess.Popen([sys.executable, "-c", command])
    first = workspace.dedup / "keys" / "wiki2019zh" / "part-00001.parquet"
    while not first.exists() and child.poll() is None:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = stamps(workspace)
    assert 2 <= len(before) < 12
    assert not (workspace.dedup / "ledger.json").exists()
    make(workspace)
    after = stamps(workspace)
    assert len(after) == 12
    assert {name: after[name] for name in before} == before
    assert not list(workspace.dedup.rglob(".*.tmp"))


def test_a_stale_list_is_refused(workspace: Workspace) -> None:
    lay_documents(workspace, "wiki2019zh", [rows(RAIN, NOODLES, RAIN)])
    make(workspace)
    chosen = selection.load(workspace, "wiki2019zh")
    assert chosen.whole.tolist() == [2]
    assert chosen.characters == {"train": len(RAIN)}
    lay_documents(workspace, "wiki2019zh", [rows(RAIN, RAIN, NOODLES)])
    with pytest.raises(WorkspaceError, match="other documents"):
        selection.load(workspace, "wiki2019zh")
    make(workspace)
    assert selection.load(workspace, "wiki2019zh").whole.tolist() == [1]


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
        workspace, "news2016zh", [rows(RAIN, long, long[:700_000], NOODLES, long[: 1 << 16] + "换" + long[1 << 16 :])]
    )
    make(workspace)
    assert [(name, detail) for name, _, detail in gone(workspace, "news2016zh")] == [("4", "news2016zh:1 1.000")]


@pytest.mark.parametrize("shards", [[], [[]], [[], []]])
def test_an_empty_dataset_has_an_empty_list(workspace: Workspace, shards: list[list[Row]]) -> None:
    lay_documents(workspace, "wiki2019zh", shards)
    assert make(workspace).ledger.counts["clusters"] == 0
    assert removed(workspace) == []
    lay_documents(workspace, "demo", [rows(RAIN, RAIN)])
    make(workspace)
    assert (removed(workspace), len(removed(workspace, "demo"))) == ([], 1)


def test_the_books_balance_in_every_split(workspace: Workspace) -> None:
    laid = sample()
    counts = make(lay(workspace, laid)).ledger.counts
    for name, shards in laid.items():
        ids = {
            document_ref(shard, line): (row[0], row[1])
            for shard, part in enumerate(shards)
            for line, row in enumerate(part)
        }
        listed = removed(workspace, name)
        documents = [row["document"] for row in listed]
        assert documents == sorted(set(documents))
        assert [ids[row["document"]] for row in listed] == [(row["id"], row["split"]) for row in listed]
        chosen = selection.load(workspace, name)
        book = counts["datasets"][name]
        for split, count in book["documents"].items():
            out = book[EXACT].get(split, 0) + book[NEAR].get(split, 0)
            assert out == chosen.documents[split]
            kept = [
                text
                for path in sorted(workspace.documents(name).glob("*.parquet"))
                for _, _, batch in selection.read_selected(path, ["split"], chosen)
                for text in batch["split"].to_pylist()
            ]
            assert kept.count(split) == count - out
    total = sum(sum(part[reason].values()) for part in counts["datasets"].values() for reason in (EXACT, NEAR))
    assert total == sum(sum(part.values()) for part in counts["pairs"].values())
    rows_ = pq.read_table(workspace.dedup / dedup.CLUSTERS).to_pylist()
    assert len(rows_) == total + counts["clusters"]
    assert sum(row["kept"] for row in rows_) == counts["clusters"]


def test_books_that_do_not_balance_are_an_error(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_documents(workspace, "wiki2019zh", [rows(RAIN, NOODLES, RAIN)])
    write = pq.ParquetWriter.write_table

    def lossy(self: pq.ParquetWriter, table: pa.Table, *options: Any, **named: Any) -> None:
        write(self, table.slice(0, 0) if table.column_names == REMOVED_SCHEMA.names else table, *options, **named)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", lossy)
    with pytest.raises(BooksError, match="wiki2019zh"):
        make(workspace)
    assert not (workspace.dedup / "ledger.json").exists()


def test_damaged_and_missing_documents_are_named(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="no documents"):
        make(workspace)
    lay_documents(workspace, "wiki2019zh", [rows(RAIN), rows(NOODLES)])
    with pytest.raises(WorkspaceError, match="demo has no documents"):
        make(workspace, datasets=("demo",))
    path = workspace.documents("wiki2019zh") / "part-00001.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamageError, match="part-00001"):
        make(workspace)
    path.unlink()
    with pytest.raises(DamageError, match="part-00001"):
        make(workspace)


@pytest.mark.parametrize(
    ("settings_", "says"),
    [
        ({"threshold": 0.4}, "--threshold"),
        ({"threshold": 1.1}, "--threshold"),
        ({"threshold": float("nan")}, "--threshold"),
        ({"workers": -1}, "--workers"),
    ],
)
def test_settings_are_checked(settings_: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DedupConfig(**settings_)


def test_only_documents_shards_of_the_ledger_are_read(workspace: Workspace) -> None:
    lay_documents(workspace, "wiki2019zh", [rows(RAIN), rows(RAIN)])
    (workspace.documents("wiki2019zh") / "part-00009.parquet").write_bytes(b"not ours")
    make(workspace)
    assert [split_ref(row["document"]) for row in removed(workspace)] == [(1, 0)]
    assert [line for _, line, _ in read_part(workspace.documents("wiki2019zh") / "part-00000.parquet")] == [0]
