from collections.abc import Callable
from typing import Any

import numpy as np
from _typeshed import ReadableBuffer

def called(texts: list[str], flags: np.ndarray, pairs: np.ndarray, invisible: int, lines: int, /) -> list[int]: ...
def strip_tags(texts: list[str], tags: bytes, kinds: np.ndarray, /) -> list[str | None]: ...
def collapse_blanks(texts: list[str], /) -> list[str]: ...
def has_run(text: str, least: int, /) -> bool: ...
def spots(text: str, table: np.ndarray, /) -> tuple[bytes, bytes, bytes, bytes]: ...
def count(
    texts: list[str],
    classes: np.ndarray,
    beginnings: np.ndarray,
    counts: np.ndarray,
    longest: int,
    span: int,
    sampled_from: int,
    sampled_below: int,
    fewest_lines: int,
    most_lines: int,
    /,
) -> tuple[bytes, bytes, bytes]: ...
def keys(record: bytes, /) -> int: ...
def parse(
    records: list[tuple[int, bytes]],
    at: int,
    fields: tuple[
        Callable[[bytes], Any],
        Callable[[Any], bytes],
        tuple[str, ...],
        tuple[type, ...],
        tuple[str, ...],
        tuple[str, ...],
    ],
    lists: tuple[list[int], list[str], list[str], list[str], list[bytes]],
    /,
) -> int: ...
def vocabulary(
    lefts: np.ndarray, rights: np.ndarray, ids: np.ndarray, classes: np.ndarray, merges: int, /
) -> object: ...
def encode(
    vocabulary: object,
    offsets: np.ndarray | ReadableBuffer,
    texts: ReadableBuffer,
    first: int,
    count: int,
    ids: np.ndarray,
    lengths: np.ndarray,
    /,
) -> int: ...
def signatures(
    texts: list[str],
    table: np.ndarray,
    values: np.ndarray,
    prefix: np.ndarray,
    shingle: int,
    bands: int,
    rows: int,
    seed: int,
    out: np.ndarray,
    /,
) -> tuple[bytes, bytes, bytes]: ...
def shingle_sets(
    texts: list[str], table: np.ndarray, values: np.ndarray, prefix: np.ndarray, shingle: int, /
) -> tuple[bytes, bytes, bytes]: ...
def overlaps(
    flat: np.ndarray,
    starts: np.ndarray,
    sizes: np.ndarray,
    sets: int,
    first: np.ndarray,
    second: np.ndarray,
    pairs: int,
    least: float,
    out: np.ndarray,
    /,
) -> None: ...
def winnow(texts: list[str], values: np.ndarray, gram: int, window: int, /) -> tuple[bytes, bytes, bytes]: ...
def gram_hashes(
    texts: list[str],
    values: np.ndarray,
    gram: int,
    owners: np.ndarray,
    begins: np.ndarray,
    counts: np.ndarray,
    parts: int,
    out: np.ndarray,
    total: int,
    /,
) -> None: ...
def gather(file: int, offsets: np.ndarray, sizes: np.ndarray, ranges: int, out: np.ndarray, /) -> None: ...
def with_spans(
    texts: list[str],
    table: np.ndarray,
    values: np.ndarray,
    bits: np.ndarray,
    exponent: int,
    gram: int,
    grams: np.ndarray,
    counts: np.ndarray,
    head: int,
    heads: np.ndarray,
    weights: tuple[int, int, int],
    /,
) -> bytes: ...
def source() -> str: ...
