"""Where a score is shown: status, verify, inspect, trace, report, the data card and the command's own output."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from corpus.pipeline.cli.main import cli
from corpus.pipeline.errors import DamageError
from corpus.pipeline.inspect import examples, lineage, status, verify
from corpus.pipeline.pack import dataset_card
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.quality.scores import score_at
from corpus.pipeline.report import build
from corpus.pipeline.storage.document_shards import document_ref
from corpus.pipeline.workspace.files import sha256_file
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger
from tests.support.documents import tree
from tests.support.report import fill
from tests.support.scored import lay, make, random_model, rows, scores

NAME, OTHER = "translation2019zh", "baike2018qa"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with rows, of which documents are left out by a model of random weights."""
    folder = tmp_path_factory.mktemp("scored")
    workspace = fill(folder, trained=False)
    with workspace.writing("quality"):
        make(workspace, model=random_model(folder / "given.safetensors"), alpha=9)
        pack.run(pack.PackConfig(dataset=NAME, workers=1, seq_length=128), workspace)
    return workspace


def test_rows_hold_what_the_score_leaves(filled: Workspace) -> None:
    gone, packed = rows(filled, NAME), read_ledger(filled.packed(NAME))
    assert packed
    assert packed.counts["left_out"]["low_quality"] == len(gone) > 10
    assert f"quality/lists/{NAME}.json" in {entry.path for entry in packed.inputs}
    every = [row for row in scores(filled, NAME) if row["split"] == "train"]
    assert packed.counts["splits"]["train"]["documents"] == len(every) - len(gone)


def test_status_and_verify_know_the_stage(filled: Workspace, tmp_path: Path) -> None:
    row = next(row for row in status.survey(filled) if row.area == "quality")
    assert (row.state, row.name, row.why) == ("finished", "", "")
    verify.run(filled)
    copy = Workspace(shutil.copytree(filled.root, tmp_path / "copy", ignore=shutil.ignore_patterns(".lock*")))
    path = copy.quality / "scores" / NAME / "part-00000.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DamageError, match=r"part-00000\.parquet has other bytes") as caught:
        verify.run(copy)
    assert "corpus quality" in caught.value.hint
    shutil.rmtree(copy.quality)
    assert "quality" not in {row.area for row in status.survey(copy)}  # nothing needs it


def test_inspect_shows_what_is_left_out_with_its_score(filled: Workspace) -> None:
    listed = {row["id"]: row for row in rows(filled, NAME)}
    shown = list(examples.sample(filled, [NAME], reason="low_quality", limit=4))
    assert len(shown) == 4
    for each in shown:
        assert (each.state, each.why) == ("left-out", f"low_quality: {listed[each.id]['detail']}")
        assert each.pieces[0][0] == "same"


def test_trace_gives_the_score_of_a_document(filled: Workspace) -> None:
    gone = {row["id"] for row in rows(filled, NAME)}
    for row in scores(filled, NAME)[:30:9]:
        (found,) = lineage.documents(filled, (NAME,), name=row["id"])
        assert found.score == (row["score"], row["id"] in gone)
        said = "left out" if row["id"] in gone else "stays"
        arguments = ["trace", "--document", row["id"], "--workspace", str(filled.root)]
        assert f"quality: score {row['score']:.4f}, {said}\n" in CliRunner().invoke(cli, arguments).output
    assert score_at(filled, NAME, document_ref(99, 0)) is None
    assert score_at(filled, "wiki2019zh", 0) is None


def test_the_report_has_scores_and_deciles(filled: Workspace, tmp_path: Path) -> None:
    part = Workspace(tmp_path / "part")  # without what has charts of its own
    beside = shutil.ignore_patterns(".lock*", "raw", "packed", "chat", "tokenizer")
    shutil.copytree(filled.root, part.root, ignore=beside)
    text = build.run(part).read_text(encoding="utf-8")
    section = text[text.index('<section id="quality"') :].partition("</section>")[0]
    assert section.count(f"{NAME}-scores-") > 5
    assert "wiki2019zh" in section
    assert "0.750" in section
    shown = [part.count('<p class="text"') for part in section.split("<details>") if '<p class="text"' in part]
    assert len(shown) == 2
    assert max(shown) == 10 >= min(shown) > 4  # a shard of few documents has fewer deciles
    assert f'data-key="{NAME}.low_quality" data-n="{len(rows(filled, NAME))}"' in section


def test_a_data_card_says_what_was_scored_and_how(filled: Workspace) -> None:
    with filled.writing("card"):
        dataset_card.run(filled)
    text = (filled.packed(NAME) / "README.md").read_text(encoding="utf-8")
    assert "Scored by likeness to `wiki2019zh`" in text
    assert f"| left out | `low_quality` | {len(rows(filled, NAME)):,} |" in text
    assert f"corpus quality --model FILE --dataset {OTHER} --dataset {NAME} --alpha 9" in text
    assert f"| quality/ledger.json | `{sha256_file(filled.quality / 'ledger.json')}` |" in text
    other = (filled.packed(OTHER) / "README.md").read_text(encoding="utf-8")
    assert "corpus quality" not in other  # its rows are older


def test_the_command_trains_and_prints(tmp_path: Path) -> None:
    root = lay(Workspace(tmp_path / "workspace")).root
    runner = CliRunner()
    done = runner.invoke(cli, ["quality", "--positive", "wiki2019zh", "--workspace", str(root), "--workers", "1"])
    assert done.exit_code == 0, done.output
    assert "AUC" in done.stdout
    assert "wiki2019zh (positive)" in done.stdout
    assert "train documents that stay, by length in characters: below 100" in done.stdout
    before = tree(root / "quality")
    done = runner.invoke(cli, ["quality", "--workspace", str(root), "--json"])
    (said,) = json.loads(done.stdout)
    assert said["skipped"]
    assert said["counts"]["model"]["positive"] == ["wiki2019zh"]
    assert tree(root / "quality") == before
    for arguments, says in (
        (["--positive", "a", "--model", "b"], "give one of the two"),
        (["--alpha", "-1"], "--alpha must be above 0"),
        (["--model", ""], "the name is empty"),
    ):
        done = runner.invoke(cli, ["quality", *arguments, "--workspace", str(root)])
        assert done.exit_code == 2
        assert says in done.stderr
