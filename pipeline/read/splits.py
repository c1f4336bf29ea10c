"""Splits by the words that name them: in a field of a record, in the name of a file, in those of its folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

SPLIT_NAMES = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "eval": "validation", "test": "test", "testing": "test", "训练": "train", "训练集": "train",
    "验证": "validation", "验证集": "validation", "开发集": "validation", "测试": "test", "测试集": "test",
}  # fmt: skip
"""Splits, by the names in use."""
_BUILT_IN = {name: SPLIT_NAMES[name] for name in ("train", "valid", "validation", "dev", "test")} | {"testa": "test"}
"""Those in the names of the built-in datasets' files: with others, documents would change their split."""
_FIRST = ("test", "validation", "train")
"""Which split a name with words of several has."""


def split_by_path(path: str) -> str:
    """The split in a file's name, else in that of the nearest folder; `hash` without one.

    >>> split_by_path("eval/latest/part-3.jsonl")
    'validation'
    """
    names = reversed(PurePosixPath(path).parts)
    return next((split for name in names if (split := _split_of(name, SPLIT_NAMES))), "hash")


def split_by_name(path: str) -> str:
    """The split in the name of a file of a built-in dataset; `hash` without one.

    >>> split_by_name("test/latest_valid.json")
    'validation'
    """
    return _split_of(PurePosixPath(path).name, _BUILT_IN) or "hash"


def _split_of(name: str, splits: Mapping[str, str]) -> str:
    """The split that a whole word of a name says: `latest` is not `test`; "" without one."""
    found = {splits.get(word) for word in re.split(r"[^a-z\u4e00-\u9fff]+", name.lower())}
    return next((split for split in _FIRST if split in found), "")
