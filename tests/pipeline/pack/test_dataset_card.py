"""Data cards: valid for those who read them, and their figures are the ledgers'."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import datasets
import mlcroissant
import pytest
import yaml
from click.testing import CliRunner, Result
from huggingface_hub import DatasetCard

from corpus.pipeline import manifest
from corpus.pipeline.cli.main import cli
from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.inspect import verify
from corpus.pipeline.pack import dataset_card
from corpus.pipeline.workspace.files import sha256_file
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger
from tests.support.report import fill

NAME = "baike2018qa"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = fill(tmp_path_factory.mktemp("card"), trained=False)
    with workspace.writing("card"):
        assert len(dataset_card.run(workspace)) == 3
    return workspace


@pytest.fixture
def copy(made: Workspace, tmp_path: Path) -> Workspace:
    return Workspace(shutil.copytree(made.root, tmp_path / "copy", ignore=shutil.ignore_patterns(".lock*")))


def corpus(workspace: Workspace, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--workspace", str(workspace.root)])


@pytest.mark.parametrize(("form", "name"), [("text", NAME), ("chat", NAME), ("text", "translation2019zh")])
def test_the_card_is_what_a_hub_reads(made: Workspace, form: str, name: str) -> None:
    """The hub's own check needs the hub; its reader, and `datasets`, which opens rows by the metadata, are here."""
    folder = made.packed(name, form)
    card = DatasetCard.load(folder / "README.md")
    values = yaml.safe_load(card.data.to_yaml())
    assert values["license"] == "other"
    assert values["license_name"] == "unsettled"
    assert ("en" in values["language"]) == (name == "translation2019zh")
    assert values["size_categories"] == ["n<1K"]
    ledger = read_ledger(folder)
    assert ledger
    rows = datasets.load_dataset(str(folder), cache_dir=str(made.root.parent / f"cache-{form}-{name}"))
    for split, counts in ledger.counts["splits"].items():
        assert len(rows[split]) == counts["rows"]
        assert f"| {split} | {counts['documents']:,} | {counts['characters']:,} | {counts['tokens']:,} |" in card.text


def test_figures_and_digests_are_those_of_the_ledgers(made: Workspace) -> None:
    text = (made.packed(NAME) / "README.md").read_text(encoding="utf-8")
    documents, packed = read_ledger(made.documents(NAME)), read_ledger(made.packed(NAME))
    assert documents
    assert packed
    assert f"| read | records | {documents.counts['records']:,} |" in text
    for reason, count in documents.counts["dropped"].items():
        assert f"| dropped | `{reason}` | {count:,} |" in text
    for kind, count in documents.counts["masked"].items():
        assert f"| masked | `{kind}` | {count:,} |" in text
    for reason, count in packed.counts["left_out"].items():
        assert f"| left out | `{reason}` | {count:,} |" in text
    for area in ("raw", "documents", "packed"):
        assert f"| {area}/{NAME}/ledger.json | `{sha256_file(made.root / area / NAME / 'ledger.json')}` |" in text
    for area in ("dedup", "decontaminate", "tokenizer"):
        assert f"| {area}/ledger.json | `{sha256_file(made.root / area / 'ledger.json')}` |" in text
    assert "exam.jsonl" in text
    assert "are not settled" in text
    assert "corpus pack --exclude FILE" in text


@pytest.mark.parametrize(("form", "name"), [("text", NAME), ("chat", NAME), ("text", "translation2019zh")])
def test_croissant_is_valid(made: Workspace, form: str, name: str) -> None:
    folder = made.packed(name, form)
    described = mlcroissant.Dataset(jsonld=folder / "croissant.json")
    issues = described.metadata.ctx.issues
    assert not issues.errors
    values = json.loads((folder / "croissant.json").read_bytes())
    ledger = read_ledger(folder)
    assert ledger
    shards = {entry.path: entry.sha256 for entry in ledger.outputs if entry.path.endswith(".arrow")}
    assert {entry["contentUrl"]: entry["sha256"] for entry in values["distribution"]} == shards
    assert {entry["name"] for entry in values["recordSet"]} == set(ledger.counts["splits"])


def test_a_croissant_that_is_wrong_is_refused(made: Workspace, tmp_path: Path) -> None:
    """That the check can fail: a field of an unknown kind."""
    values = json.loads((made.packed(NAME) / "croissant.json").read_bytes())
    values["recordSet"][0]["field"][0]["source"] = {"fileObject": {"@id": "nowhere"}, "extract": {"column": "x"}}
    (tmp_path / "croissant.json").write_text(json.dumps(values))
    with pytest.raises(mlcroissant.ValidationError):
        mlcroissant.Dataset(jsonld=tmp_path / "croissant.json")


def test_cards_are_no_outputs_and_change_nothing(copy: Workspace) -> None:
    ledger = read_ledger(copy.packed(NAME))
    assert ledger
    assert not {"README.md", "croissant.json"} & {output.path for output in ledger.outputs}
    verify.run(copy)
    result = corpus(copy, "pack", "--seq-length", "128")
    assert result.exit_code == 0, result.output
    assert read_ledger(copy.packed(NAME)) == ledger


def test_equal_ledgers_give_equal_cards_and_a_missing_one_comes_back(copy: Workspace, made: Workspace) -> None:
    for name in ("README.md", "croissant.json"):
        (copy.packed(NAME) / name).unlink()
    assert corpus(copy, "card", "--dataset", NAME).exit_code == 0
    for name in ("README.md", "croissant.json"):
        assert (copy.packed(NAME) / name).read_bytes() == (made.packed(NAME) / name).read_bytes()


def test_pack_writes_them(copy: Workspace) -> None:
    for path in copy.root.rglob("README.md"):
        path.unlink()
    assert corpus(copy, "pack", "--seq-length", "64").exit_code == 0
    text = (copy.packed(NAME) / "README.md").read_text(encoding="utf-8")
    assert "--seq-length 64" in text
    packed = read_ledger(copy.packed(NAME))
    assert packed
    assert not {"README.md", "croissant.json"} & {output.path for output in packed.outputs}


def test_what_is_gone_upstream_is_said(copy: Workspace) -> None:
    for area in ("raw", "documents", "dedup", "decontaminate", "tokenizer"):
        shutil.rmtree(copy.root / area)
    assert corpus(copy, "card").exit_code == 0
    assert "ledger is gone" in (copy.packed(NAME) / "README.md").read_text(encoding="utf-8")


def test_rows_made_from_other_documents_get_no_card(copy: Workspace) -> None:
    before = (copy.packed(NAME) / "README.md").read_bytes()
    (copy.documents(NAME) / "ledger.json").write_bytes((copy.documents(NAME) / "ledger.json").read_bytes() + b" ")
    result = corpus(copy, "card", "--dataset", NAME)
    assert isinstance(result.exception, WorkspaceError)
    assert "was made from another documents/baike2018qa/ledger.json" in str(result.exception)
    assert (copy.packed(NAME) / "README.md").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "licence"), [("demo", "mit"), ("wiki2019zh", "cc-by-sa"), ("baike2018qa", "unsettled")]
)
def test_the_licence_is_that_of_the_texts(name: str, licence: str) -> None:
    values = manifest.licence_of(manifest.load(name))
    assert licence in values.values()
    assert ("license_name" in values) == (values["license"] == "other")


def test_nothing_packed_is_said(workspace: Workspace) -> None:
    result = corpus(workspace, "card")
    assert result.exit_code
    assert "nothing is packed" in str(result.exception)
