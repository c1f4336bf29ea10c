"""`corpus evaluate`: what training measures on rows it measures on documents, and the command shows it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from corpus.pipeline.cli import main
from corpus.pipeline.storage.row_shards import open_rows
from corpus.pipeline.tokenizer import files
from corpus.pipeline.tokenizer.special_tokens import PAD, SEPARATOR
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger
from corpus.train.data.collate import Collator, Rows
from corpus.train.evaluation import stage as score
from corpus.train.evaluation.config import EvaluateConfig
from corpus.train.evaluation.documents import texts_of
from corpus.train.evaluation.metrics import evaluate, token_sizes
from corpus.train.evaluation.windows import cut
from tests.support.command import corpus
from tests.support.evaluated import CONTEXT, NAME, Listener, counts, measure, validation

pytestmark = pytest.mark.xdist_group("evaluate")  # the workspace is made once


def spread_over(texts: list[str], count: int) -> list[str]:
    return [texts[number * len(texts) // count] for number in range(count)]


def test_documents_give_what_packed_rows_give(ready: Workspace) -> None:
    """Training's own evaluation over all rows of validation: equal counts, equal nats to rounding."""
    rows = Rows([open_rows(ready.packed(NAME))["validation"]])
    ids = files.load(ready.tokenizer)
    pad, separator = (ids.token_to_id(token) or 0 for token in (PAD, SEPARATOR))
    on_rows = evaluate(
        AutoModelForCausalLM.from_pretrained(ready.models / "ours"), rows, range(len(rows)),
        collator=Collator(seq_length=CONTEXT, pad_id=pad, separator=separator),
        sizes=token_sizes(ready.tokenizer / "tokenizer.json"), rows_per_pass=4,
    )  # fmt: skip
    found = measure(ready)
    (result,) = found.results
    assert not found.notes
    assert (result.dataset, result.documents, found.context, found.stride) == (NAME, 30, CONTEXT, CONTEXT)
    assert (result.score.tokens, result.score.characters, result.score.bytes) == (
        on_rows.tokens, on_rows.characters, on_rows.bytes,
    )  # fmt: skip
    assert result.score.nats == pytest.approx(on_rows.nats, rel=1e-6)
    assert (result.unknown, result.unseen) == (0, 0)
    ledger = read_ledger(ready.packed(NAME))
    assert ledger is not None
    cut_documents = ledger.counts["splits"]["validation"]["cut_documents"]
    assert cut_documents > 5  # windows are put to the test


@pytest.mark.parametrize("stride", [None, 5, 31])
def test_against_a_loop_over_tokens(ready: Workspace, stride: int | None) -> None:
    """Each predicted token looked up in the scores of its window alone, in double precision."""
    model = AutoModelForCausalLM.from_pretrained(ready.models / "ours").double().eval()
    ids = files.load(ready.tokenizer)
    sizes = token_sizes(ready.tokenizer / "tokenizer.json")
    nats, sums = 0.0, np.zeros(3, np.int64)
    for text in spread_over(validation(ready), 7):
        separator = ids.token_to_id(SEPARATOR)
        document = [separator, *ids.encode(text, add_special_tokens=False).ids, separator]
        predicted = 0
        for start in range(0, len(document), stride or CONTEXT):
            begin = start + (start > 0)
            window = document[begin : start + CONTEXT + 1]
            with torch.no_grad():
                logits = model(torch.tensor([window[:CONTEXT]])).logits[0].log_softmax(-1)
            for place in range(max(begin + 1, predicted), begin + len(window)):
                nats -= logits[place - begin - 1, document[place]].item()
                sums += (1, *sizes[document[place]])
            predicted = begin + len(window)
            if predicted == len(document):
                break
    found = measure(ready, stride=stride, documents=7)
    assert list(counts(found)) == sums.tolist()
    assert found.total().windows > 50  # long documents are among them
    assert found.total().score.nats == pytest.approx(nats, rel=1e-5)


def test_batches_and_the_buffer_change_nothing(ready: Workspace) -> None:
    alone = measure(ready, batch_size=1, stride=10)
    assert alone.total().windows > 60
    for size in (3, 16, 1000, None):
        together = measure(ready, batch_size=size, stride=10)
        assert counts(together) == counts(alone)
        assert together.total().score.nats == pytest.approx(alone.total().score.nats, rel=1e-6)
    config = EvaluateConfig(model=ready.models / "ours", device="cpu", precision="fp32", stride=10)
    tight = score.run(config, ready, buffer_passes=0, encoded_texts=1)  # a buffer of one document
    assert counts(tight) == counts(alone)
    assert tight.total().score.nats == pytest.approx(alone.total().score.nats, rel=1e-6)


def test_overlap_predicts_every_token(ready: Workspace) -> None:
    apart, overlapped = measure(ready), measure(ready, stride=CONTEXT // 2)
    ids = files.load(ready.tokenizer)
    lengths = [len(ids.encode(text, add_special_tokens=False).ids) + 1 for text in validation(ready)]
    assert counts(overlapped)[0] == sum(lengths)
    assert counts(apart)[0] == sum(length + 1 - -(-length // CONTEXT) for length in lengths)
    assert counts(apart)[0] < counts(overlapped)[0]


@pytest.mark.parametrize("context", [2, 5, 8])
def test_windows_predict_each_token_once(context: int) -> None:
    for length in range(1, 30):
        for stride in range(1, context + 1):
            windows = list(cut(length, context, stride))
            predicted = [place for begin, end, first in windows for place in range(first, end)]
            assert predicted == sorted(set(predicted))
            assert all(begin < first < end <= begin + context for begin, end, first in windows)
            unseen = set(range(length)) - set(predicted)
            assert unseen == ({0} if stride < context else set(range(0, length, context)))
            read = [
                place
                for begin, end, first in cut(length, context, stride, prefixed=True)
                for place in range(first, end)
            ]
            assert read == sorted(set(read))
            missed = set(range(1, length)) - set(read)
            assert missed == (set() if stride < context else set(range(context + 1, length, context)))


def test_documents_are_an_even_spread_and_progress_counts_them(ready: Workspace) -> None:
    listener = Listener()
    config = EvaluateConfig(model=ready.models / "ours", device="cpu", documents=7)
    found = score.run(config, ready, progress=listener)
    assert (listener.begun, listener.done) == ([(NAME, 7, "documents")], 7)
    assert found.total().documents == 7
    assert [*texts_of(config, ready, listener)[0].read()] == spread_over(validation(ready), 7)
    assert measure(ready, documents=500).total().score == measure(ready).total().score


def test_the_command(ready: Workspace) -> None:
    done = corpus("evaluate", "--model", "ours", folder=ready.root.parent, COLUMNS="80")
    found = measure(ready).total()
    shown = f"baike2018qa +30 +[0-9.]+ k +{found.score.loss:.3f} .* {found.score.bits_per_character:.3f} "
    assert re.search(shown, done.stdout)
    assert max(map(len, done.stdout.splitlines()[:6])) <= 80
    assert "windows of 32 tokens" in done.stdout
    assert "Loading weights" not in done.stderr


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """The command within this process: torch is loaded already. Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as leave:
        main.main(["evaluate", *map(str, arguments)])
    out, err = capsys.readouterr()
    return int(str(leave.value.code)), out, err


def test_json_and_failures_of_the_command(ready: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--workspace", ready.root, "--device", "cpu")
    code, out, _ = run(capsys, *where, "--model", ready.models / "ours", "--json", "--documents", 5, "--stride", 16)
    values = json.loads(out)
    assert (code, values["stride"], values["datasets"][0]["documents"]) == (0, 16, 5)
    assert values["all"]["nats"] == pytest.approx(measure(ready, documents=5, stride=16).total().score.nats, rel=1e-6)
    code, _, err = run(capsys, *where, "--model", "ours", "--stride", 0)
    assert (code, "--stride must be at least 1, is 0" in err) == (2, True)
    code, _, err = run(capsys, *where, "--model", "nothing")
    assert (code, "there is no run nothing in" in err) == (1, True)
