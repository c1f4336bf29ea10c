"""Test items that stand in train, and in the documents of a workspace."""

from __future__ import annotations

from pathlib import Path

import pytest

from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents.stage import IngestConfig
from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.progress import Progress
from corpus.pipeline.storage import removals
from corpus.pipeline.tasks import Item
from corpus.pipeline.tasks.leaks import datasets_of, in_documents, within
from corpus.pipeline.workspace.layout import OUTSIDE, OUTSIDE_REWARD, Workspace
from corpus.pipeline.workspace.ledger import FileDigest, Ledger, write_ledger
from tests.support.documents import TRAIN, VALID
from tests.support.items import SOME, prose
from tests.support.records import LayRaw, baike, lines

LONG = "外婆把晒好的被子收进柜子，又在里面放了两块樟脑，说这样到了冬天打开来还是香的。"


def item(identity: str, *texts: str, options: tuple[str, ...] = ()) -> Item:
    return Item(id=identity, texts=texts, options=options, label=0, place="x")


@pytest.mark.parametrize(
    ("train", "test", "leaked"),
    [
        ((LONG,), (LONG,), True),
        ((LONG,), (LONG.replace("，", ",  ").replace("樟脑", "樟腦"),), True),
        ((f"有人写道：{LONG}还说了很多别的话。",), (LONG,), True),
        ((LONG[:13] + "，后来就忘了放在哪里，怎么找也找不到。",), (LONG,), False),
        (("好看",), ("好 看！",), True),
        (("好看极了",), ("好看",), False),
        ((LONG, "柜子里有樟脑。"), (LONG, "柜子里有樟脑"), True),
        ((LONG, "柜子里有樟脑。"), (LONG, "外婆今年七十岁。"), False),
        ((LONG, "被子放在柜子里是为了冬天。"), (f"{LONG}好。", "被子放在柜子里是为了冬天！"), True),
    ],
)
def test_an_item_stands_in_train_with_all_its_texts(
    train: tuple[str, ...], test: tuple[str, ...], *, leaked: bool
) -> None:
    found = within([item("other", *(prose(9),) * len(train)), item("a", *train)], [item("b", *test)])
    assert found == ({"b": "a"} if leaked else {})


def test_options_do_not_count_and_pairs_are_told_by_the_good_sentence() -> None:
    pair = Item(id="p", texts=(), options=(LONG, LONG[::-1]), label=0, place="x")
    assert within([pair], [pair]) == {"p": "p"}
    assert within([item("a", LONG, options=("甲", "乙"))], [item("b", LONG, options=("丙", "丁"))]) == {"b": "a"}


class Bar(Progress):
    """Keeps how far the bar went."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.done = 0

    def begin(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        if label == "leaks":
            self.total, self.done = total, 0

    def advance(self, amount: int) -> None:
        self.done += amount


def test_items_are_found_in_the_documents_of_training(workspace: Workspace, lay_raw: LayRaw) -> None:
    answers = {3: LONG, 4: f"她笑着说：{LONG}大家都记住了。"}
    records = [baike(n, answer=answers.get(n, SOME[n % 12] + f"这是第{n * 3}次说起。")) for n in range(12)]
    held = "只在验证集里出现的一句话，不应当算作泄漏，因为模型没有在它上面训练过一次。"
    lay_raw("baike2018qa", {TRAIN: lines(records), VALID: lines([baike(90, answer=held)])})
    ingest.run(IngestConfig(dataset="baike2018qa", workers=1), workspace)
    items = [item("in", "短", LONG), item("held", held), item("out", prose(40)), item("short", "晴")]
    bar = Bar()
    found = in_documents(workspace, ["baike2018qa"], items, bar)
    assert list(found) == ["in"]
    assert found["in"].startswith("baike2018qa:qid_3@")
    assert bar.done == bar.total == 13
    (workspace.root / removals.LIST).write_text(found["in"])
    again = in_documents(workspace, ["baike2018qa"], items)
    assert again["in"].startswith("baike2018qa:qid_4@")
    with pytest.raises(WorkspaceError, match="wiki2019zh has no documents"):
        in_documents(workspace, ["wiki2019zh"], items)


def test_a_run_names_the_datasets_it_read(demo: Workspace, tmp_path: Path) -> None:
    (run,) = [path.parent for path in demo.models.glob("*/ledger.json")]
    assert datasets_of(run, demo) == datasets_of(run / "best", demo) == (["demo"], "")
    names, unknown = datasets_of(tmp_path, demo)
    assert (names, unknown) == ([], f"{tmp_path} has no ledger, so it is not known what it was trained on")


def test_a_run_that_changed_no_weight_is_followed_once(workspace: Workspace) -> None:
    """Through the weights that it began with, not through those of its reward model."""

    def entry(path: str, content: str) -> FileDigest:
        return FileDigest(path, 1, content * 64)

    weights, taught_by = entry(f"{OUTSIDE}model.safetensors", "a"), entry(f"{OUTSIDE_REWARD}model.safetensors", "c")
    for name, inputs in {"same": [weights, taught_by], "start": [entry("packed/demo/train-00000.arrow", "b")]}.items():
        outputs = [entry("model.safetensors", "a")]
        ledger = Ledger(
            stage="train",
            dataset=None,
            version=1,
            config={},
            inputs=inputs,
            outputs=outputs,
            counts={},
            fingerprint=name,
        )
        (workspace.models / name).mkdir(parents=True)
        write_ledger(workspace.models / name, ledger, {})
    assert datasets_of(workspace.models / "same", workspace) == (["demo"], "")
