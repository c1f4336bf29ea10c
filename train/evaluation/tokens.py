"""A model's own tokenizer: documents in, tokens out, and how much text is in each token.

In: a folder that `AutoTokenizer` opens. Out: for each document its ids, with the tokenizer's prefix and the end of a
document, and the characters and bytes of each id.
Invariants: a character counts once, in the token that holds its first byte, so the sizes of a document's tokens add up
to its text, without the characters that the tokenizer drops; special strings in a text are ordinary text; special
tokens have size 0.
Cost: that of the library; offsets are computed only where the vocabulary does not give the sizes.
"""

# Shape suffixes: t tokens of a document, v entries of the vocabulary.
from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import decoders

from corpus.pipeline.errors import TokenizerError
from corpus.pipeline.tokenizer.special_tokens import SEPARATOR
from corpus.train.evaluation.metrics import vocabulary_sizes
from corpus.train.model.load import beginning, check_vocabulary, open_tokenizer

_HINT = "Give --model a folder with the tokenizer that the model was trained with, as `save_pretrained` writes it."
_PROBE = "a"
_MARK = "▁"
"""SentencePiece's token for a blank, which it also adds before a text that begins without one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedDocument:
    """A document as tokens."""

    ids_t: np.ndarray
    """[t] int64, prefix and end of the document included."""
    sizes: np.ndarray
    """[t, 2] int64, characters and bytes."""
    unknown: int
    """Unknown tokens."""
    unseen: int
    """Characters in no token."""


class DocumentTokenizer:
    """The tokenizer of a model's folder, which measures how much text is in each token; the embedding has `rows` rows.

    Raises:
        TokenizerError: it is missing, unreadable or another model's, gives no offsets, or has no end of a document.

    """

    def __init__(self, folder: Path, *, rows: int) -> None:
        self.folder = folder
        self.rows = rows
        self.tokenizer = open_tokenizer(folder)
        if not self.tokenizer.is_fast:
            raise TokenizerError(
                f"{folder}: a {type(self.tokenizer).__name__} does not give the positions of its tokens in a text",
                hint="Give --model a folder with a fast tokenizer: one that has a tokenizer.json.",
            )
        special = {number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        ordinary = set(self.tokenizer.get_vocab().values()) - special
        if not ordinary:  # AutoTokenizer opens a folder without a tokenizer as an empty one
            raise TokenizerError(f"{folder} holds no tokenizer", hint=_HINT)
        check_vocabulary(folder, ordinary, rows)
        self.before = beginning(self.tokenizer)
        self.after = self._end()
        self.mark = self.tokenizer.get_vocab().get(_MARK, -1)
        self.sizes_v = self._byte_sizes()

    def encode(self, texts: Sequence[str]) -> Iterator[TokenizedDocument]:
        """The tokens of each text.

        Raises:
            TokenizerError: the model has no row for a token.

        """
        spans = self.sizes_v is None
        encoded = self._ids(texts, offsets=spans)
        for number, text in enumerate(texts):
            ids_t = np.array(encoded["input_ids"][number], dtype=np.int64)
            if self.sizes_v is not None:
                sizes = self.sizes_v[ids_t]
            if spans or sizes.sum(axis=0).tolist() != [len(text), len(text.encode())]:
                offsets = encoded["offset_mapping"][number] if spans else self._ids([text])["offset_mapping"][0]
                sizes = offset_sizes(text, self._without_marks(text, ids_t, offsets))
            yield self._document(text, ids_t, sizes)

    def _without_marks(self, text: str, ids_t: np.ndarray, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
        """[t, 2] offsets; a word mark that stands for no blank gets an empty one in place of its neighbour's."""
        places = np.array(offsets, dtype=np.int64).reshape(-1, 2)
        for at in np.flatnonzero(ids_t == self.mark):
            if not text[places[at, 0] : places[at, 1]].isspace():
                places[at, 1] = places[at, 0]
        return places

    def _document(self, text: str, ids_t: np.ndarray, sizes: np.ndarray) -> TokenizedDocument:
        whole_t = np.concatenate((self.before, ids_t, self.after)).astype(np.int64)
        if whole_t.max() >= self.rows:
            odd = int(whole_t.max())
            token = self.tokenizer.convert_ids_to_tokens(odd)
            raise TokenizerError(
                f"{self.folder}: the model has no row for the token {token!r} ({odd:,} of {self.rows:,}), "
                f"which a document that begins with {text[:20]!r} needs",
                hint=_HINT,
            )
        return TokenizedDocument(
            ids_t=whole_t,
            sizes=np.pad(sizes, ((len(self.before), len(self.after)), (0, 0))),
            unknown=int((ids_t == self.tokenizer.unk_token_id).sum()) if self.tokenizer.unk_token else 0,
            unseen=len(text) - int(sizes[:, 0].sum()),
        )

    def _ids(self, texts: Sequence[str], *, offsets: bool = True, special: bool = False) -> Any:
        return self.tokenizer(
            list(texts), add_special_tokens=special, split_special_tokens=True, return_offsets_mapping=offsets,
            return_attention_mask=False, padding=False, truncation=False, verbose=False,
        )  # fmt: skip

    def _byte_sizes(self) -> np.ndarray | None:
        """[v, 2] sizes by id, for a byte-level tokenizer; None for another one."""
        backend = self.tokenizer.backend_tokenizer
        if isinstance(backend.decoder, decoders.ByteLevel):
            with contextlib.suppress(TokenizerError):
                return vocabulary_sizes(backend, str(self.folder))
        return None

    def _end(self) -> list[int]:
        """The end of a document."""
        end = self.tokenizer.get_added_vocab().get(SEPARATOR, self.tokenizer.eos_token_id)
        if end is not None:
            return [end]
        bare, whole = (self._ids([_PROBE], special=special)["input_ids"][0] for special in (False, True))
        after: list[int] = whole[len(self.before) + len(bare) :]
        if not after:
            raise TokenizerError(
                f"{self.folder}: the tokenizer has no {SEPARATOR} and no other end of a document",
                hint="Set its eos_token to the token that stood between documents in training.",
            )
        return after


def offset_sizes(text: str, offsets: np.ndarray) -> np.ndarray:
    """[t, 2] characters and bytes of each token: a character of several tokens counts in the first of them.

    `offsets` [t, 2] are the first character of each token, and the end of its last.

    >>> offset_sizes("茶 te", np.array([[0, 1], [0, 1], [2, 4]])).tolist()
    [[1, 3], [0, 0], [2, 2]]

    """
    if len(offsets) == 0:
        return np.zeros((0, 2), dtype=np.int64)
    ends_t = np.maximum.accumulate(offsets[:, 1])
    begins_t = np.minimum(np.maximum(offsets[:, 0], np.concatenate(([0], ends_t[:-1]))), ends_t)
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    widths = 1 + (codes > 0x7F).astype(np.int64) + (codes > 0x7FF) + (codes > 0xFFFF)
    bytes_before = np.concatenate(([0], np.cumsum(widths)))
    return np.stack((ends_t - begins_t, bytes_before[ends_t] - bytes_before[begins_t]), axis=1)
