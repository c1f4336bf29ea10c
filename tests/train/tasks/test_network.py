"""The head reads the extract token; padding, the pass and the order of options change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from corpus.pipeline.errors import ModelError
from corpus.pipeline.tasks import Item
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.tasks import network
from corpus.train.tasks.batches import TaskCollator, TaskItems
from corpus.train.tasks.forms import Form
from corpus.train.tasks.predict import logits
from corpus.train.tasks.tokens import TaskTokenizer
from tests.support.task_items import KINDS, form_of, item, small_network

ITEMS = {
    "classification": [item("春天的雨下了一整夜"), item("茶"), item("猫睡在暖气片上，尾巴垂下来轻轻摇。")],
    "entailment": [item("春天的雨", "雨"), item("茶", "水开之后再加一碗凉水"), item("猫睡了", "尾巴")],
    "similarity": [item("春天的雨", "雨"), item("茶", "水开之后再加一碗凉水"), item("猫睡了", "尾巴")],
    "choice": [
        item("春天的雨", "几时？", options=("早上", "夜里", "第三天"), label=2),
        item("茶", "", options=("水", "船"), label=1),
        item("猫睡在暖气片上", "谁？", options=("猫", "他把书合上"), label=0),
    ],
}


def scores(
    workspace: Workspace, made: Any, items: Sequence[Item], form: Form, *, tokens: int = 4096, labels: int = 3
) -> np.ndarray:
    tokenizer = TaskTokenizer(workspace.tokenizer)
    encoded = TaskItems(items, tokenizer, form, 64)
    collator = TaskCollator(tokenizer.pad)
    return logits(made, encoded, np.arange(len(items)), collator=collator, labels=labels, tokens=tokens)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_batch_is_single_and_padded_is_unpadded(tokenized: Workspace, kind: str, family: str) -> None:
    made, _ = small_network(tokenized, kind, family=family)
    items, form = ITEMS[kind], form_of(kind)
    together = scores(tokenized, made, items, form)
    apart = np.concatenate([scores(tokenized, made, [each], form) for each in items])
    one_a_pass = scores(tokenized, made, items, form, tokens=1)
    np.testing.assert_allclose(together, apart, atol=1e-5)
    np.testing.assert_allclose(together, one_a_pass, atol=1e-5)
    shown = together[np.isfinite(together)]
    assert shown.std() > 0.05


def test_what_stands_in_the_padding_is_not_read(tokenized: Workspace) -> None:
    made, tokenizer = small_network(tokenized, "classification")
    batch = TaskCollator(tokenizer.pad)(
        TaskItems(ITEMS["classification"], tokenizer, form_of("classification"), 64).__getitems__([0, 1, 2])
    )
    with torch.no_grad():
        before = made(**batch).logits
        batch["input_ids"][batch["attention_mask"] == 0] = 17
        assert torch.allclose(made(**batch).logits, before, atol=1e-6)


def test_an_options_score_does_not_depend_on_its_place(tokenized: Workspace) -> None:
    made, _ = small_network(tokenized, "choice")
    (there,) = scores(tokenized, made, [ITEMS["choice"][0]], form_of("choice"))
    turned = item("春天的雨", "几时？", options=("第三天", "早上", "夜里"))
    (here,) = scores(tokenized, made, [turned], form_of("choice"))
    np.testing.assert_allclose(here, there[[2, 0, 1]], atol=1e-5)
    assert scores(tokenized, made, [ITEMS["choice"][1]], form_of("choice")).tolist()[0][2] == -np.inf


def test_both_orders_are_symmetric_and_one_is_not(tokenized: Workspace) -> None:
    made, _ = small_network(tokenized, "similarity")
    swapped = [item(*reversed(each.texts)) for each in ITEMS["similarity"]]
    both, one = form_of("similarity"), form_of("similarity", both_orders=False)
    given = {form: [scores(tokenized, made, items, form, labels=2) for items in (ITEMS["similarity"], swapped)]
             for form in (both, one)}  # fmt: skip
    np.testing.assert_allclose(given[both][0], given[both][1], atol=1e-5)
    assert np.abs(given[one][0] - given[one][1]).max() > 1e-2
    np.testing.assert_allclose(given[both][0], given[one][0] + given[one][1], atol=1e-5)  # the layer has no bias


def test_the_head_sees_the_whole_text(tokenized: Workspace) -> None:
    made, tokenizer = small_network(tokenized, "classification")
    items = [item("春天的雨"), item("春天的茶"), item("猫天的雨"), item("春天的雨")]
    first, last, begun, same = scores(tokenized, made, items, form_of("classification"), labels=2)
    assert np.abs(first - last).max() > 1e-3
    assert np.abs(first - begun).max() > 1e-3
    np.testing.assert_allclose(first, same, atol=1e-5)
    with torch.no_grad():  # the state that is read is that of the extract token
        made.transformer.wte.weight[tokenizer.marks.extract] *= -1
    assert np.abs(scores(tokenized, made, items, form_of("classification"), labels=2)[0] - first).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_the_papers_equations(tokenized: Workspace, kind: str) -> None:
    """Against sums written out item by item: the label's, and lambda times the mean over sequences of their tokens'."""
    items, form = ITEMS[kind], form_of(kind)
    for aux_lm in (0.0, 0.5):
        made, tokenizer = small_network(tokenized, kind, aux_lm=aux_lm, head_dropout=0.0)
        encoded = TaskItems(items, tokenizer, form, 64)
        made.train()
        with torch.no_grad():
            given = made(**TaskCollator(tokenizer.pad)(encoded.__getitems__([0, 1, 2])), num_items_in_batch=5).loss
            expected = 0.0
            outputs = scores(tokenized, made, items, form)
            head = made.base_model.get_input_embeddings().weight
            for number, each in enumerate(encoded.encoded):
                row = torch.from_numpy(outputs[number][np.isfinite(outputs[number])])
                expected += float(-row.log_softmax(0)[each.label])
                own = []
                for ids in each.sequences:
                    ids_t = torch.from_numpy(ids.astype(np.int64))
                    states = made.base_model(input_ids=ids_t[None]).last_hidden_state[0]
                    own.append(torch.nn.functional.cross_entropy(states[:-1] @ head.T, ids_t[1:]).item())
                expected += aux_lm * float(np.mean(own))
        assert float(given) == pytest.approx(expected / 5, rel=1e-4)


def test_a_pass_without_items_has_no_loss_and_a_gradient_for_all(tokenized: Workspace) -> None:
    made, tokenizer = small_network(tokenized, "classification", aux_lm=0.5)
    made.train()
    loss = made(**TaskCollator(tokenizer.pad)([]), num_items_in_batch=4).loss
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in made.parameters())


def test_new_tokens_have_rows_and_the_output_layer_stays_tied(tokenized: Workspace) -> None:
    made, tokenizer = small_network(tokenized, "classification", aux_lm=0.5)
    table = made.get_input_embeddings().weight
    assert len(table) == tokenizer.size == made.config.vocab_size == 403
    assert max(tokenizer.marks.start, tokenizer.marks.delimiter, tokenizer.marks.extract) < len(table)
    assert made.lm_head is None  # the embedding is the output layer
    assert not torch.equal(table[tokenizer.marks.start], table[tokenizer.marks.extract])
    assert made.config.pad_token_id == tokenizer.pad


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("kind", ["classification", "entailment", "similarity"])
def test_transformers_reads_the_same(tokenized: Workspace, tmp_path: Path, family: str, kind: str) -> None:
    made, tokenizer = small_network(tokenized, kind, family=family)
    form = form_of(kind, both_orders=False)
    made.save_pretrained(tmp_path)
    tokenizer.save(tmp_path, form=form, context=64)
    items = ITEMS[kind]
    count = len(KINDS[kind]["labels"])
    ours = scores(tokenized, made, items, form, labels=count)
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(opened) is not type(made)
    texts = [each.texts[0] if len(each.texts) == 1 else list(each.texts) for each in items]
    with torch.no_grad():
        theirs = opened(**AutoTokenizer.from_pretrained(tmp_path)(texts, padding=True, return_tensors="pt")).logits
    np.testing.assert_allclose(theirs.numpy(), ours, atol=1e-5)
    asked = [{"text": each.texts[0], **({"text_pair": each.texts[1]} if len(each.texts) > 1 else {})} for each in items]
    found = pipeline("text-classification", str(tmp_path), device="cpu")(asked)
    assert [each["label"] for each in found] == [KINDS[kind]["labels"][best] for best in ours.argmax(1)]


def test_a_family_without_such_a_head_is_refused() -> None:
    from transformers import BloomConfig, MambaConfig

    assert network.task_class(BloomConfig(hidden_size=8, n_layer=1, n_head=1)).__name__.startswith("Bloom")
    with pytest.raises(ModelError, match="no decoder of the family mamba with a head for classes"):
        network.task_class(MambaConfig())
