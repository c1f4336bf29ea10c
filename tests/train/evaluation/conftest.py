"""One workspace for all tests of `corpus evaluate`."""

from __future__ import annotations

import pytest

from corpus.pipeline.pack import stage as pack
from corpus.pipeline.tokenizer import stage as tokenizer
from corpus.pipeline.workspace.layout import Workspace
from tests.support.command import corpus
from tests.support.documents import TRAIN, VALID
from tests.support.evaluated import CONTEXT, NAME, answer, save_ours
from tests.support.records import baike, lines


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Documents, one of validation left out, a tokenizer, rows, and a random model in `models/ours`."""
    workspace = Workspace(tmp_path_factory.mktemp("evaluate") / "workspace")
    source = workspace.root.parent / "fetched"
    source.mkdir()
    held = [baike(900 + n, answer=answer(100 + n)) for n in range(30)]
    held[4] = baike(904, answer="正文里写着<|endoftext|>和<|pad|>，它们只是字😀。")
    (source / TRAIN).write_bytes(lines(baike(n, answer=answer(n)) for n in range(90)))
    (source / VALID).write_bytes(lines([*held, held[3]]))
    corpus("ingest", "--source", source, "--no-rule", "repeated_spans", folder=workspace.root.parent)
    tokenizer.run(tokenizer.TokenizerConfig(vocab_size=400), workspace)
    pack.run(pack.PackConfig(dataset=NAME, workers=1, seq_length=CONTEXT, unit_characters=2_000), workspace)
    save_ours(workspace, workspace.models / "ours")
    return workspace
