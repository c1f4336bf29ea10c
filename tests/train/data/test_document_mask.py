"""The trap of packing: documents of a row must not see each other, in the very batches that the Trainer uses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from corpus.pipeline.workspace.layout import Workspace
from corpus.train.config import TrainConfig
from corpus.train.run.stage import run
from corpus.train.run.trainer import CorpusTrainer
from tests.support.packed import lay_all

Batch = dict[str, Any]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[Batch]]:
    """A model after a real run, with what its `compute_loss` was given on the way."""
    batches: list[Batch] = []
    compute_loss = CorpusTrainer.compute_loss

    def record(self: Any, model: Any, inputs: Batch, **options: Any) -> Any:
        batches.append({key: value.clone() if torch.is_tensor(value) else value for key, value in inputs.items()})
        return compute_loss(self, model, inputs, **options)

    workspace = lay_all(Workspace(tmp_path_factory.mktemp("seen") / "workspace"))
    config = TrainConfig(model="tiny", max_steps=6, batch_size=8, micro_batch_size=4, learning_rate=3e-3, threads=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CorpusTrainer, "compute_loss", record)
        report = run(config, workspace)
    model = AutoModelForCausalLM.from_pretrained(report.folder).eval()
    with torch.no_grad():
        for block in model.transformer.h:
            block.attn.c_attn.weight.mul_(4)  # attention that looks somewhere, as a trained model's does
    return model, batches


def segments(batch: Batch, row: int) -> list[slice]:
    """Where the documents of a row lie, by their positions."""
    starts = torch.nonzero(batch["position_ids"][row] == 0).flatten().tolist()
    return [slice(*bounds) for bounds in zip(starts, [*starts[1:], batch["input_ids"].shape[1]], strict=True)]


def forward(model: Any, batch: Batch, **changes: Any) -> torch.Tensor:
    inputs = {key: value for key, value in batch.items() if "labels" not in key} | changes
    with torch.no_grad():
        logits: torch.Tensor = model(**inputs).logits
    return logits


def test_packed_equals_separate(seen: tuple[Any, list[Batch]]) -> None:
    model, batches = seen
    assert len(batches) == 6 * 2
    documents = 0
    for batch in batches[:4]:
        logits = forward(model, batch)
        for row in range(len(logits)):
            for place in segments(batch, row):
                with torch.no_grad():
                    alone = model(batch["input_ids"][row : row + 1, place]).logits[0]
                assert (logits[row, place] - alone).abs().max() < 1e-4
                documents += 1
    assert documents > 40


def test_a_changed_document_leaves_the_others_alone(seen: tuple[Any, list[Batch]]) -> None:
    model, batches = seen
    batch = next(batch for batch in batches if len(segments(batch, 0)) > 2)
    first, second, *_ = segments(batch, 0)
    before = forward(model, batch)
    changed = batch["input_ids"].clone()
    changed[0, second] = changed[0, second].roll(1) + 1
    after = forward(model, batch, input_ids=changed)
    others = [index for index in range(before.shape[1]) if not second.start <= index < second.stop]
    assert torch.equal(before[0, first], after[0, first])
    assert torch.equal(before[0, others], after[0, others])
    assert (before[0, second] - after[0, second]).abs().max() > 0.1


def test_the_two_ways_into_the_trap_are_open_without_us(seen: tuple[Any, list[Batch]]) -> None:
    """What the batch leaves out, or switches off, is what would let documents see each other."""
    model, batches = seen
    logits = forward(model, batches[0])
    mask = torch.ones_like(batches[0]["input_ids"])
    for leak in ({"use_cache": True}, {"attention_mask": mask}):
        assert (forward(model, batches[0], **leak) - logits).abs().max() > 0.01


def test_the_loss_is_that_of_the_documents(seen: tuple[Any, list[Batch]]) -> None:
    model, batches = seen
    batch = batches[0]
    with torch.no_grad():
        packed = model(**batch).loss.item()
        nats, tokens = 0.0, 0
        for row in range(len(batch["input_ids"])):
            for place in segments(batch, row):
                ids = batch["input_ids"][row : row + 1, place]
                targets = batch["labels"][row, place]
                logits = model(ids).logits[0].double().log_softmax(-1)
                for at in (targets != -100).nonzero().flatten().tolist():
                    nats -= logits[at, targets[at]].item()
                    tokens += 1
    assert packed == pytest.approx(nats / tokens, rel=1e-5)
