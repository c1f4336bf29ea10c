"""Splits by the names of files and folders."""

from __future__ import annotations

import pytest

from corpus.pipeline.read.splits import split_by_name, split_by_path


@pytest.mark.parametrize(
    ("path", "by_path", "by_name"),
    [
        ("train/part-0.jsonl", "train", "hash"),
        ("eval/latest/part-0.jsonl", "validation", "hash"),
        ("训练集/验证.jsonl", "validation", "hash"),
        ("train/test_of_train.jsonl", "test", "test"),
        ("web_text_zh_testa.json", "hash", "test"),
        ("my_val.json", "validation", "hash"),  # built-in documents keep the split that they have
        ("latest.json", "hash", "hash"),
    ],
)
def test_splits_by_whole_words(path: str, by_path: str, by_name: str) -> None:
    assert (split_by_path(path), split_by_name(path)) == (by_path, by_name)
