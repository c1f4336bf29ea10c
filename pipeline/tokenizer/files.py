"""The files of a tokenizer: the workspace's, and those of a model.

A model's tokenizer is the workspace's and puts the separator before a text, because the model was trained to read a
document from there on: `AutoTokenizer`, lm-evaluation-harness and llama.cpp then do the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from corpus.pipeline.errors import TokenizerError, WorkspaceError
from corpus.pipeline.tokenizer.special_tokens import ASSISTANT, PAD, SEPARATOR, USER
from corpus.pipeline.workspace.checked import checked
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import FileDigest, read_ledger

PATTERN = "gpt2"
"""The split pattern, by its name in encoders and runtimes.

It separates a newline from the punctuation before it, so that a prompt ending in a question mark is encoded as in
training; Qwen 2's pattern joins both.
"""

_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    f"{ASSISTANT}{{{{ message['content'] }}}}{SEPARATOR}"
    f"{{% else %}}{USER}{{{{ message['content'] }}}}{{% endif %}}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{ASSISTANT}{{% endif %}}"
)


def load(folder: Path) -> Tokenizer:
    """The workspace's tokenizer, which encodes special strings in text as ordinary text.

    Raises:
        WorkspaceError: there is no tokenizer.
        TokenizerError: it cannot be read.

    """
    path = folder / "tokenizer.json"
    if read_ledger(folder) is None or not path.is_file():
        raise WorkspaceError(f"{folder} holds no tokenizer", hint="Run `corpus tokenizer` first.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises a bare Exception
        raise TokenizerError(f"{path} cannot be read: {error}", hint="Run `corpus tokenizer` again.") from error
    tokenizer.encode_special_tokens = True
    return tokenizer


def tokenizer_digest(workspace: Workspace) -> FileDigest:
    """The workspace's tokenizer as an input of a stage.

    Raises:
        WorkspaceError: there is no tokenizer.
        DamageError: it has another digest than its ledger says.

    """
    ledger = read_ledger(workspace.tokenizer)
    path = workspace.tokenizer / "tokenizer.json"
    if ledger is None:
        raise WorkspaceError(f"{workspace.tokenizer} holds no tokenizer", hint="Run `corpus tokenizer` first.")
    return workspace.file_digest(checked(workspace, path))


def of_model(folder: Path) -> dict[str, bytes]:
    """The files of a model's tokenizer by name, from those of the workspace in `folder`.

    Raises:
        TokenizerError: they cannot be read.

    """
    path = folder / "tokenizer.json"
    values = _values(path)
    number = next((token["id"] for token in values.get("added_tokens", ()) if token["content"] == SEPARATOR), None)
    if number is None:
        raise TokenizerError(f"{path} has no {SEPARATOR}", hint="Run `corpus tokenizer` again.")
    begin = {"SpecialToken": {"id": SEPARATOR, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    values["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [begin, first],
        "pair": [begin, first, second],
        "special_tokens": {SEPARATOR: {"id": SEPARATOR, "ids": [number], "tokens": [SEPARATOR]}},
    }
    return {
        "tokenizer.json": (json.dumps(values, ensure_ascii=False, indent=2) + "\n").encode(),
        "tokenizer_config.json": hub_config(of_model=True),
    }


def are_equal(one: Path, other: Path) -> bool:
    """Whether two `tokenizer.json` give the same tokens; what they put before a text may differ.

    Raises:
        TokenizerError: one of them cannot be read.

    """
    first, second = (_values(path) | {"post_processor": None} for path in (one, other))
    return first == second


def _values(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TokenizerError(
            f"{path} cannot be read: {error}", hint="Copy it again, or run `corpus tokenizer`."
        ) from error
    if not isinstance(values, dict):
        raise TokenizerError(f"{path} cannot be read: it holds no object", hint="Copy it again.")
    return values


def hub_config(*, of_model: bool = False) -> bytes:
    """`tokenizer_config.json` for the hub's `AutoTokenizer`, of the workspace's tokenizer or of a model's."""
    begin = {"add_bos_token": True} if of_model else {}
    config = {
        **begin,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SEPARATOR,
        "eos_token": SEPARATOR,
        "pad_token": PAD,
        "additional_special_tokens": [USER, ASSISTANT],
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "chat_template": SEPARATOR + _CHAT_TEMPLATE if of_model else _CHAT_TEMPLATE,
    }
    return (json.dumps(config, ensure_ascii=False, sort_keys=True, indent=2) + "\n").encode()
