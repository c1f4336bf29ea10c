"""The files of a tokenizer: loads the workspace's, and makes the configuration for the hub's `AutoTokenizer`."""

from __future__ import annotations

import json
from pathlib import Path

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


def hub_config() -> bytes:
    """`tokenizer_config.json` for the hub's `AutoTokenizer`."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SEPARATOR,
        "eos_token": SEPARATOR,
        "pad_token": PAD,
        "additional_special_tokens": [USER, ASSISTANT],
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "chat_template": _CHAT_TEMPLATE,
    }
    return (json.dumps(config, ensure_ascii=False, sort_keys=True, indent=2) + "\n").encode()
