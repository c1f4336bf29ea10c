"""The chat form: turns by literal tables, the rows on disk, the books, the reruns, and the way back."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from corpus.pipeline import kernels, templates
from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.download import stage as download
from corpus.pipeline.errors import BooksError, DamageError, WorkspaceError
from corpus.pipeline.inspect import lineage, verify
from corpus.pipeline.pack import shard
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.pack.stage import PackConfig
from corpus.pipeline.storage import selection
from corpus.pipeline.storage.document_shards import split_ref
from corpus.pipeline.storage.row_shards import open_rows
from corpus.pipeline.tokenizer import files, special_tokens
from corpus.pipeline.tokenizer import stage as tokenizer
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Report, read_ledger, write_ledger
from corpus.train.config import TrainConfig
from corpus.train.data.collate import Collator, Rows
from corpus.train.presets import PRESETS
from corpus.train.run import stage as train
from tests.support.command import corpus
from tests.support.documents import TRAIN, VALID, tree
from tests.support.records import LayRaw, baike, lines

SPECIAL = "有人写<|assistant|>，有人写<|user|>，还有<|endoftext|>，都只是字。"
LONG = "，".join(f"第{n}步先停一停再往下走" for n in range(60))
NAME = "baike2018qa"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions, some with long answers and special strings, one empty, some twice; and the demo; and a tokenizer."""
    source = tmp_path_factory.mktemp("source")
    records = [baike(n, answer=f"答案是{n * 7}，因为{'道理' * (n % 30)}如此。") for n in range(300)]
    records += [
        baike(5000, title="这几个字要紧吗，比如<|assistant|>？", answer=SPECIAL),
        baike(5001, answer=LONG),
        baike(5002, title="这样问下去会不会太长？" + LONG, answer="会，" + LONG),
        *(baike(n, qid=f"qid_{n}再", answer=f"答案是{n * 7}，因为{'道理' * (n % 30)}如此。") for n in range(40, 60)),
    ]
    records.insert(20, baike(5003, title="", answer="没有人问，也有人答，那就当它是一段平常的话。"))
    (source / TRAIN).write_bytes(lines(records))
    (source / VALID).write_bytes(lines([baike(n) for n in range(300, 330)]))
    workspace = Workspace(tmp_path_factory.mktemp("made") / "workspace")
    download.run(download.DownloadConfig(dataset=NAME, source=str(source)), workspace)
    config = ingest.IngestConfig(dataset=NAME, workers=1, piece_bytes=20_000, off=("repeated_spans",))
    ingest.run(config, workspace)
    download.run(download.DownloadConfig(dataset="demo"), workspace)
    ingest.run(ingest.IngestConfig(dataset="demo", workers=1), workspace)
    dedup.run(dedup.DedupConfig(workers=1, near=False), workspace)
    tokenizer.run(tokenizer.TokenizerConfig(vocab_size=360), workspace)
    return workspace.root


@pytest.fixture
def ready(made: Path, workspace: Workspace) -> Workspace:
    """A copy of it."""
    shutil.copytree(made, workspace.root)
    return workspace


def make(workspace: Workspace, **settings: Any) -> Report:
    values: dict[str, Any] = {"dataset": NAME, "form": "chat", "workers": 1, "seq_length": 128}
    return pack.run(PackConfig(**values | settings), workspace)


def pieces(workspace: Workspace, dataset: str = NAME) -> dict[tuple[int, int], dict[int, list[int]]]:
    """The segments of each document, by the token that they begin with."""
    found: dict[tuple[int, int], dict[int, list[int]]] = {}
    for rows in datasets.load_from_disk(str(workspace.packed(dataset, "chat"))).values():
        for row in rows:
            position = 0
            for segment in row["segments"]:
                ids = row["input_ids"][position : position + segment["length"]]
                found.setdefault(split_ref(segment["document"]), {})[segment["start"]] = ids
                position += segment["length"]
    return found


def documents(workspace: Workspace, dataset: str = NAME) -> dict[tuple[int, int], dict[str, Any]]:
    chosen = selection.load(workspace, dataset)
    return {
        (number, int(line)): document
        for path in sorted(workspace.documents(dataset).glob("part-*.parquet"))
        for number, numbers, batch in selection.read_selected(path, ["text", "prompt_length", "split"], chosen)
        for line, document in zip(numbers, batch.to_pylist(), strict=True)
    }


@pytest.mark.parametrize("strategy", ["best-fit", "concat"])
@pytest.mark.parametrize("dataset", [NAME, "demo"])
def test_rows_hold_the_turns_of_every_document(ready: Workspace, strategy: str, dataset: str) -> None:
    make(ready, dataset=dataset, strategy=strategy, unit_characters=5000)
    model = files.load(ready.tokenizer)
    turns = {
        place: templates.turn(document["text"], document["prompt_length"])
        for place, document in documents(ready, dataset).items()
    }
    expected = {place: f"<|user|>{turn[0]}<|assistant|>{turn[1]}<|endoftext|>" for place, turn in turns.items() if turn}
    assert 0 < len(expected) < len(turns)
    found = pieces(ready, dataset)
    assert found.keys() == expected.keys()
    special = [token for token in map(model.token_to_id, special_tokens.SPECIAL_TOKENS) if token is not None]
    for place, segments in found.items():
        whole = [token for start in sorted(segments) for token in segments[start]]
        assert model.decode(whole, skip_special_tokens=False) == expected[place]
        assert [whole.count(token) for token in special] == [1, 0, 1, 1]
    assert any(SPECIAL in text for text in expected.values()) == (dataset == NAME)


def test_the_tokenizers_own_chat_template_gives_the_same(ready: Workspace) -> None:
    make(ready)
    hub = AutoTokenizer.from_pretrained(ready.tokenizer)
    found, compared = pieces(ready), 0
    for place, document in documents(ready).items():
        turn = templates.turn(document["text"], document["prompt_length"])
        if turn is None or len(found[place]) > 1 or "<|" in document["text"]:  # to the template a special string is one
            continue
        messages = [{"role": role, "content": side} for role, side in zip(("user", "assistant"), turn, strict=True)]
        assert hub.apply_chat_template(messages, tokenize=True, return_dict=False) == found[place][0]
        compared += 1
    assert compared > 200


def test_the_books_balance(ready: Workspace) -> None:
    report = make(ready, unit_characters=5000)
    all_of_them, chosen = selection.documents_of(ready, NAME).counts, selection.load(ready, NAME)
    assert chosen.documents.total() == 20
    for split, counts in report.ledger.counts["splits"].items():
        used = counts["documents"] + counts["without_prompt"]
        assert used + chosen.documents[split] == all_of_them["splits"][split]
        used = counts["characters"] + counts["characters_without_prompt"]
        assert used + chosen.characters[split] == all_of_them["characters"][split]
        assert counts["tokens"] + counts["padding"] == counts["rows"] * 128
    assert report.ledger.counts["splits"]["train"]["without_prompt"] == 1
    assert report.notes[-1].startswith(f"{NAME}: 2 documents were cut: ")
    demo = make(ready, dataset="demo").ledger.counts["splits"]["train"]
    assert demo["documents"] > 20 < demo["without_prompt"]


@pytest.mark.parametrize("lost", ["document", "character"])
def test_books_that_do_not_balance_end_the_stage(ready: Workspace, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    documents_of = shard.documents_of

    def lossy(*arguments: Any) -> Any:
        for references, array, prompts in documents_of(*arguments):
            texts = array.to_pylist()
            if lost == "document":
                yield references[1:], pa.array([texts[0] + texts[1], *texts[2:]], pa.string()), prompts[1:]
            else:
                yield references, pa.array([texts[0][:-1], *texts[1:]], pa.string()), prompts

    monkeypatch.setattr(shard, "documents_of", lossy)
    with pytest.raises(BooksError, match="without a question"):
        make(ready, seq_length=64)


@pytest.mark.parametrize("strategy", ["best-fit", "concat"])
def test_the_answer_tokens_are_those_that_get_a_label(ready: Workspace, strategy: str) -> None:
    ledger = make(ready, strategy=strategy, seq_length=64, unit_characters=5000).ledger
    assert ledger.counts["splits"]["train"]["cut_documents"] > 2
    after = files.load(ready.tokenizer).token_to_id(special_tokens.ASSISTANT)
    collator = Collator(seq_length=64, pad_id=1, separator=0, answer_after=after)
    for split, rows in open_rows(ready.packed(NAME, "chat")).items():
        labels = collator(Rows([rows]).__getitems__(range(len(rows))))["labels"]
        assert int((labels != -100).sum()) == ledger.counts["splits"][split]["answer_tokens"] > 0


def test_workers_and_engine_change_no_byte(ready: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    trees, compiled = [], kernels.compiled
    for workers, loaded in ((1, compiled), (3, compiled), (1, None)):
        shutil.rmtree(ready.packed(NAME, "chat"), ignore_errors=True)
        monkeypatch.setattr(kernels, "compiled", loaded)
        trees.append(tree(make(ready, workers=workers, unit_characters=5000).folder))
    assert len([name for name in trees[0] if name.startswith("train/data-")]) > 2
    assert all(other == trees[0] for other in trees[1:])


def test_reruns(ready: Workspace) -> None:
    text = make(ready, form="text", unit_characters=5000)
    before = tree(text.folder)
    folder = make(ready, unit_characters=5000).folder
    assert (folder, tree(text.folder)) == (ready.root / "chat" / NAME, before)
    assert "form" not in text.ledger.config
    whole = tree(folder)
    assert make(ready, unit_characters=5000).skipped
    (folder / "ledger.json").unlink()
    (folder / "train" / "data-00001.arrow").unlink()
    shutil.copy(
        text.folder / "train" / "data-00002.arrow", folder / "train"
    )  # another form's shard is no shard of ours
    kept = (folder / "train" / "data-00000.arrow").stat().st_mtime_ns
    make(ready, unit_characters=5000)
    assert tree(folder) == whole
    assert (folder / "train" / "data-00000.arrow").stat().st_mtime_ns == kept
    tokenizer.run(tokenizer.TokenizerConfig(vocab_size=380), ready)
    assert "vocab-size was 360 and is 380" in make(ready, unit_characters=5000).reasons


def test_a_shard_without_a_question_is_empty_and_opens(ready: Workspace) -> None:
    ingest.run(ingest.IngestConfig(dataset="demo", workers=1, piece_bytes=4000), ready)
    dedup.run(dedup.DedupConfig(workers=1, near=False), ready)
    tokenizer.run(tokenizer.TokenizerConfig(vocab_size=360), ready)
    counts = make(ready, dataset="demo", unit_characters=1).ledger.counts["splits"]["train"]
    shards = sorted((ready.packed("demo", "chat") / "train").glob("*.arrow"))
    sizes = [datasets.Dataset.from_file(str(path)).num_rows for path in shards]
    assert 0 in sizes
    assert sum(sizes) == counts["rows"] > 0
    rows = open_rows(ready.packed("demo", "chat"))["train"]
    assert len(rows) == counts["rows"]
    assert verify.run(ready).stages > 3


def test_a_dataset_without_questions_is_named(ready: Workspace, lay_raw: LayRaw) -> None:
    article = {"id": "1", "url": "", "title": "河", "text": "河从山里来，往海里去，一年四季都不停。" * 3}
    lay_raw("wiki2019zh", {"wiki_zh/AA/wiki_00": lines([article])})
    ingest.run(ingest.IngestConfig(dataset="wiki2019zh", workers=1), ready)
    with pytest.raises(WorkspaceError, match="wiki2019zh has no questions") as caught:
        make(ready, dataset="wiki2019zh")
    assert "corpus pack" in caught.value.hint
    assert not ready.packed("wiki2019zh", "chat").exists()
    done = corpus("pack", "--form", "chat", "--seq-length", "128", folder=ready.root.parent)
    assert "without questions, so not packed: wiki2019zh" in done.stderr
    assert "demo: not used:" in done.stdout
    assert ready.finished("chat") == [NAME, "demo"]
    assert "wiki2019zh has no questions" in corpus(
        "pack", "--form", "chat", "--dataset", "wiki2019zh", folder=ready.root.parent, code=1
    ).stderr  # fmt: skip
    for name in (NAME, "demo"):
        shutil.rmtree(ready.documents(name))
    assert "no questions" in corpus("pack", "--form", "chat", folder=ready.root.parent, code=1).stderr


def test_a_damaged_documents_shard_is_named(ready: Workspace) -> None:
    path = min(ready.documents(NAME).glob("part-*.parquet"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DamageError, match=path.name):
        make(ready)
    assert path.name in corpus("pack", "--form", "chat", folder=ready.root.parent, code=1).stderr


def test_an_unknown_form_is_wrong_usage() -> None:
    with pytest.raises(ValueError, match="--form must be one of text, chat, is poem"):
        PackConfig(dataset="demo", form="poem")


def test_every_row_leads_back_to_its_records(ready: Workspace) -> None:
    report = make(ready, seq_length=96)
    seen: set[str] = set()
    rows = report.ledger.counts["splits"]["train"]["rows"]
    for number in range(0, rows, 3):
        segments, padding = lineage.row(ready, NAME, "train", number, "chat")
        assert sum(segment.length for segment in segments) + padding == 96
        assert all(segment.rebuilt and segment.origin.rebuilt for segment in segments)
        seen |= {segment.text for segment in segments}
    assert any(text.startswith("<|user|>") and text.endswith("<|endoftext|>") for text in seen)
    assert any(not text.startswith("<|user|>") for text in seen)  # later pieces
    with pytest.raises(WorkspaceError, match=f"chat/{NAME}/train has no row {rows}"):
        lineage.row(ready, NAME, "train", rows, "chat")
    path = next(ready.documents(NAME).glob("part-00000.parquet"))
    table = pq.read_table(path)
    shorter = pa.array([max(0, length - 4) for length in table["prompt_length"].to_pylist()], pa.int32())
    moved = table.set_column(2, table.schema.field(2), shorter)
    pq.write_table(moved, path)
    ledger = read_ledger(path.parent)
    assert ledger
    outputs = [ready.file_digest(path.parent / each.path, path.parent) for each in ledger.outputs]
    write_ledger(path.parent, dataclasses.replace(ledger, outputs=outputs), {})  # else it would be damage
    (ready.dedup / "ledger.json").unlink()  # whose lists were made from other documents
    origins = [segment for number in range(rows) for segment in lineage.row(ready, NAME, "train", number, "chat")[0]]
    assert not all(segment.rebuilt for segment in origins)
    assert not all(segment.origin.rebuilt for segment in origins)


def test_on_the_terminal(ready: Workspace) -> None:
    folder = ready.root.parent
    make(ready)
    shown = corpus("trace", "--form", "chat", f"{NAME}:0", folder=folder).stdout
    assert "<|assistant|>" in shown
    assert "the same again" in shown
    assert f"packed/{NAME}/train has no row 0" in corpus("trace", f"{NAME}:0", folder=folder, code=1).stderr
    assert "--form goes with" in corpus("trace", "--form", "chat", "--text", "答", folder=folder, code=2).stderr
    assert "poem" in corpus("pack", "--form", "poem", folder=folder, code=2).stderr


def test_a_model_is_tuned_on_answers_alone(ready: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text first, then answers: the figures of validation are those of the answers, counted one by one."""
    monkeypatch.setitem(PRESETS, "tiny", dataclasses.replace(PRESETS["tiny"], layers=1, width=32, heads=2))
    settings: dict[str, Any] = {"model": "tiny", "datasets": (NAME,), "batch_size": 8, "max_steps": 4, "threads": 1}
    with pytest.raises(WorkspaceError, match="is not packed") as caught:
        train.run(TrainConfig(**settings, objective="sft"), ready)
    assert "corpus pack --form chat" in caught.value.hint
    make(ready)
    make(ready, form="text")
    first = train.run(TrainConfig(**settings, run="first"), ready)
    tuned = train.run(
        TrainConfig(
            **settings, run="tuned", objective="sft", init=first.folder, eval_rows=0, sample_prompts=("第2个问题",)
        ),
        ready,
    )
    assert tuned.ledger.inputs[0].path == f"chat/{NAME}/ledger.json"
    assert '"prompt": "第2个问题"' in (tuned.folder / "samples.jsonl").read_text()
    after = files.load(ready.tokenizer).token_to_id(special_tokens.ASSISTANT)
    assert after is not None
    model = AutoModelForCausalLM.from_pretrained(tuned.folder)
    nats, answers = 0.0, 0
    rows = open_rows(ready.packed(NAME, "chat"))["validation"]
    for row in rows:
        position = 0
        for segment in row["segments"]:
            ids = torch.tensor([0, *row["input_ids"][position : position + segment["length"]]])
            position += segment["length"]
            begin = ids.tolist().index(after) + 1
            logits = model(ids[None]).logits[0]
            nats += torch.nn.functional.cross_entropy(
                logits[begin - 1 : -1].float(), ids[begin:], reduction="sum"
            ).item()
            answers += len(ids) - begin
    assert tuned.ledger.counts["validation"][NAME]["loss"] == pytest.approx(nats / answers, rel=1e-4)
    assert "conversational" in (tuned.folder / "README.md").read_text()
