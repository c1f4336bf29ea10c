"""Manifests: those we ship, and every way in which one can be wrong."""

from __future__ import annotations

import contextlib
import re
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.pipeline import manifest as manifests
from corpus.pipeline.errors import ManifestError
from tests.support.records import examples

GOOD = (files("corpus.manifests") / "baike2018qa.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", manifests.DATASETS)
def test_shipped_manifests_are_whole(name: str) -> None:
    manifest = manifests.load(name)
    assert manifest.name == name
    assert manifest.min_length_reason
    assert manifest.licence
    assert name == "demo" or (manifest.archive.endswith(".zip") and len(manifest.mirrors) >= 3)


def test_members_match_the_official_layout() -> None:
    wiki = manifests.load("wiki2019zh")
    found = wiki.member_of("wiki_zh/AM/wiki_73")
    assert found is not None
    assert (found[0].split, found[1]) == ("hash", "AM/wiki_73")
    assert wiki.member_of("wiki_zh/AM/wiki_73.bak/x") is None
    news = manifests.load("news2016zh")
    inside = news.member_of("new2016zh/news2016zh_valid.json")
    assert inside is not None
    assert inside[0].split == "validation"
    assert news.member_of("news2016zh_valid.json") is not None


def test_known_digests_are_those_of_the_facts() -> None:
    train, valid = manifests.load("baike2018qa").members[:2]
    assert (train.bytes, valid.bytes) == (1_542_626_171, 48_524_625)
    assert train.sha256 is not None
    assert train.sha256.startswith("9ad304c5")


BROKEN = [
    ('title = "', 'titel = "', "title: is missing"),
    ("min_length = 10", 'min_length = "10"', "min_length: must be int, is str '10'"),
    ("min_length = 10", "min_length = -1", "min_length: must not be negative"),
    ("simplify = true", "simplify = 1", "simplify: must be bool"),
    ('split = "validation"', 'split = "dev"', "members[1].split: 'dev' is not train"),
    ("bytes = 48_524_625", "bytes = true", "members[1].bytes: must be int"),
    ('sha256 = "6f51', 'sha256 = "xyz', "members[1].sha256: must be 64 hexadecimal digits"),
    ('qid = "str"', 'qid = "string"', "fields.qid: 'string' is not one of"),
    ('form = "question"', 'form = "essay"', "document.form: 'essay' is not one of"),
    ('answer = "answer"\n', "", "document.answer: is missing"),
    ('detail = "desc"', 'detail = "descr"', "document.detail: 'descr' is not among the fields"),
    ("[document]", "[document]\ncolour = 1", "document.colour: unknown key"),
    ('name = "Aliyun OSS"', 'name = "Aliyun OSS"\nrank = 1', "mirrors[0].rank: unknown key"),
    ("http://atp", "ftp://atp", "mirrors[0].files: 'ftp://atp"),
    ('archive = "', 'archive = "../', "archive: '../baike2018qa.zip' must be a plain file name"),
    ('name = "baike2018qa"', 'name = "../x"', "name: '../x' is not a dataset name"),
    ("[fields]", "[fields", "is not TOML"),
    ("raw_bytes", "validation_share = 2.0\nraw_bytes", "validation_share: 2.0 is not a share"),
]


@pytest.mark.parametrize(("old", "new", "message"), BROKEN)
def test_a_broken_manifest_names_file_and_key(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ManifestError) as caught:
        manifests.parse(GOOD.replace(old, new, 1), where="mine.toml")
    assert caught.value.message.startswith("mine.toml")
    assert message in caught.value.message


def test_unknown_dataset() -> None:
    with pytest.raises(ManifestError, match="no dataset called"):
        manifests.load("wiki2020")


@settings(max_examples=examples(400), deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 12), st.text(max_size=8))
def test_no_edit_crashes_the_reader(position: int, length: int, text: str) -> None:
    with contextlib.suppress(ManifestError):
        manifests.parse(GOOD[:position] + text + GOOD[position + length :], where="mine.toml")


OWN = """name = "mine"
min_length = -3
colour = "red"

[quality]
min_han = 2.0

[[members]]
pattern = "**/*.md"
split = "dev"

[[members]]
pattern = "**/*.csv"
split = "hash"
format = "xls"

[document]
form = "question"
title = "q"
"""


def test_every_problem_of_a_users_manifest_is_named_with_its_line() -> None:
    with pytest.raises(ManifestError) as caught:
        manifests.parse(OWN, where="mine.toml", own=True)
    assert caught.value.message.splitlines() == [
        "mine.toml:10: members[0].split: 'dev' is not train, validation, test, name or hash",
        "mine.toml:15: members[1].format: 'xls' is not lines, array, csv, tsv, text, file or parquet",
        "mine.toml:17: document.answer: is missing",
        "mine.toml:2: min_length: must not be negative, is -3",
        "mine.toml:6: quality.min_han: 2.0 is not a share between 0 and 1",
        "mine.toml:3: colour: unknown key",
    ]


def test_a_mistyped_key_is_told_from_a_missing_one() -> None:
    text = (
        'name = "mine"\n[document]\nform = "article"\nbdy = "text"\n[fields]\nn = "int"\n[[member]]\nsplit = "hash"\n'
    )
    with pytest.raises(ManifestError) as caught:
        manifests.parse(text, where="mine.toml", own=True)
    assert caught.value.message.splitlines() == [
        "mine.toml:2: document.body: is missing",
        "mine.toml:4: document.bdy: unknown key; did you mean body?",
        "mine.toml:7: member: unknown key; did you mean members?",
    ]


def test_a_users_manifest_may_be_short() -> None:
    manifest = manifests.parse('name = "mine"\n[document]\nform = "article"\nbody = "text"', where="m", own=True)
    assert (manifest.title, manifest.licence, manifest.min_length) == ("mine", "not stated", 10)
    assert manifest.member_of("any/where/x.jsonl") is not None
    assert manifest.member_of("any/where/x.png") is None
    with pytest.raises(ManifestError, match="'demo' is a built-in dataset"):
        manifests.parse('name = "demo"\n[document]\nform = "article"\nbody = "text"', where="m", own=True)


def test_what_only_a_users_manifest_may_say() -> None:
    for key in ('source = "x"\n', '[document]\nsplit = "s"\n'):
        text = key + GOOD if key.startswith("source") else GOOD.replace("[document]\n", key)
        with pytest.raises(ManifestError, match="unknown key"):
            manifests.parse(text, where="mine.toml")


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ('form = "ranking"\nprompt = "p"', "ranking needs `ranking`, or both `chosen` and `rejected`"),
        ('form = "ranking"\nchosen = "c"', "ranking needs `ranking`, or both"),
        ('form = "ranking"\nranking = "r"\nchosen = "c"\nrejected = "d"', "ranking needs `ranking`, or both"),
        ('form = "ranking"\nranking = "r"\nprompt = "p"\nturns = "t"', "a `prompt` or `turns`, not both"),
        ('form = "article"\nbody = "b"\n[document.votes]\nquestion = "q"\nscore = "s"', "goes with the form question"),
        ('form = "question"\ntitle = "t"\nanswer = "a"\n[document.votes]\nquestion = "q"', "score: is missing"),
        (
            'form = "question"\ntitle = "t"\nanswer = "a"\n[document.votes]\nquestion = "a"\nscore = "s"',
            "field 'a' is text of the document",
        ),
        (
            'form = "question"\ntitle = "t"\nanswer = "a"\n[document.votes]\nscore = "a"',
            "document.votes.score: field 'a' is text",
        ),
    ],
)
def test_rankings_and_votes_that_are_not_whole(document: str, says: str) -> None:
    with pytest.raises(ManifestError, match=re.escape(says)):
        manifests.parse(f'name = "mine"\n[document]\n{document}', where="mine.toml", own=True)


def test_webtext_has_votes_and_the_demo_with_it() -> None:
    for name in ("webtext2019zh", "demo"):
        votes = manifests.load(name).votes
        assert votes is not None
        assert (votes.question, votes.score, votes.time) == ("qid", "star", "answer_id")
    assert manifests.load("baike2018qa").votes is None
