"""The tokenizer of a task model: the one of the model that it starts from, with start, delimiter, extract and a pad.

In: a folder that `AutoTokenizer` opens. Out: ids of texts, and the files of a tokenizer that puts start and extract
around a text by itself, and a delimiter between two.
Invariants: the special tokens have ids of their own, also the pad (with pad = end of a document a head that reads the
last token before the padding would not see that token); a text that spells one of them stays text, in the saved
tokenizer too; padding is on the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, processors

from corpus.pipeline.errors import TokenizerError
from corpus.pipeline.tokenizer.special_tokens import PAD
from corpus.train.model.load import check_vocabulary, open_tokenizer
from corpus.train.model.quiet import quiet
from corpus.train.tasks.forms import Form, Marks

START, DELIMITER, EXTRACT = "<|start|>", "<|delimiter|>", "<|extract|>"
_INPUTS = ["input_ids", "attention_mask"]
"""What the tokenizer returns: with `token_type_ids` GPT-2 would add the embeddings of its tokens 0 and 1."""


class TaskTokenizer:
    """Encodes texts, and knows the special tokens.

    `folder` is that of a model whose embedding has `rows` rows, or of a workspace's tokenizer.

    Raises:
        TokenizerError: the folder has no tokenizer, no tokenizer.json, or another model's.

    """

    def __init__(self, folder: Path, *, rows: int | None = None) -> None:
        self.tokenizer = open_tokenizer(folder)
        special = {number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        ordinary = set(self.tokenizer.get_vocab().values()) - special
        if not self.tokenizer.is_fast or not ordinary:  # AutoTokenizer opens a folder without one as an empty one
            raise TokenizerError(
                f"{folder} holds no fast tokenizer: none with a tokenizer.json",
                hint="Copy the tokenizer that the model was trained with into the folder.",
            )
        if rows is not None:
            check_vocabulary(folder, ordinary, rows)
        names = [START, DELIMITER, EXTRACT]
        pad = self.tokenizer.pad_token_id
        if pad is None or pad == self.tokenizer.eos_token_id:
            names.append(PAD)
        known = self.tokenizer.get_vocab()
        self.added = tuple(name for name in names if name not in known)
        """The special tokens that the folder's tokenizer lacks."""
        self.tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in names])
        if PAD in names:
            self.tokenizer.pad_token = PAD
        ids = self.tokenizer.convert_tokens_to_ids([START, DELIMITER, EXTRACT])
        self.marks = Marks(*ids)
        self.pad = int(self.tokenizer.pad_token_id)
        self.separator = self.tokenizer.eos_token_id
        self.size = max(self.tokenizer.get_vocab().values()) + 1
        """Rows that an embedding needs."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, without special ones."""
        encoded: list[list[int]] = self.tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=True, return_attention_mask=False,
            return_token_type_ids=False, padding=False, truncation=False, verbose=False,
        )["input_ids"] if texts else []  # fmt: skip
        return encoded

    def save(self, folder: Path, *, form: Form, context: int) -> None:
        """Write the files of a tokenizer that makes the form's single texts and pairs."""
        tokenizer: Any = self.tokenizer
        between = f" {DELIMITER}" if form.delimiter else ""
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{START} $A {EXTRACT}",
            pair=f"{START} $A{between} $B {EXTRACT}",
            special_tokens=[(name, tokenizer.convert_tokens_to_ids(name)) for name in (START, DELIMITER, EXTRACT)],
        )
        tokenizer.padding_side = tokenizer.truncation_side = "right"
        tokenizer.model_max_length = context
        tokenizer.model_input_names = _INPUTS
        tokenizer.split_special_tokens = True
        for name in ("local_files_only", "is_local"):
            tokenizer.init_kwargs.pop(name, None)
        tokenizer.init_kwargs |= {"model_input_names": _INPUTS, "split_special_tokens": True}
        with quiet():
            tokenizer.save_pretrained(str(folder))
