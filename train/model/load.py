"""A causal model and its tokenizer from a folder: the one place that opens model folders.

In: a folder that `save_pretrained` wrote, and the flag that named it. Out: objects of `transformers`.
Invariants: the folder is untrusted: weights come from safetensors on this disk, no pickle is read, no code of the
folder runs, no hub is asked; a model is whole: no weight is missing and drawn at random instead; a run's model is what
its ledger says; no network is built that the weights do not hold or the memory cannot.
Cost: about the time to read the weights, once more where the digest of a run's model is not cached.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from corpus.pipeline.errors import ModelError, TokenizerError, TrainError
from corpus.pipeline.tokenizer import files as tokenizer_files
from corpus.pipeline.workspace.layout import REWARD_SHIFT, TASK_MODEL
from corpus.train.model import checks
from corpus.train.model.architecture import DROPOUTS
from corpus.train.model.build import configure
from corpus.train.model.device import is_out_of_memory
from corpus.train.model.quiet import first_line, quiet

_PROBE_TOKENS = 8
_PROBE_TEXT = "a"
_ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 1e-3}
"""Share of the largest score that may be rounding where nothing should change; on a CPU it is 0."""


def load(
    folder: Path, *, vocab_size: int, seq_length: int, tokenizer: Path, dropout: float | None = None,
    pack: str = "corpus pack",
) -> Any:  # fmt: skip
    """A model to train, in single precision whatever it was saved in; `dropout` replaces its own, if given.

    `tokenizer` is the `tokenizer.json` that the rows were packed with; the folder's own must equal it, if there is one.
    `pack` is the command that makes the rows, for the hint.

    Raises:
        ModelError: the folder does not hold a whole model.
        TokenizerError: the model has another vocabulary or tokenizer.
        TrainError: the rows are longer than the model's context.

    """
    config = _read_config(folder, "--init")
    _check_same_tokenizer(folder, config, vocab_size, tokenizer)
    limit = config.get("n_positions") or config.get("max_position_embeddings") or seq_length
    if limit < seq_length:
        raise TrainError(
            f"{folder} takes {limit:,} tokens at once, the rows have {seq_length:,}",
            hint=f"Run `{pack} --seq-length {limit}` first.",
        )
    changed = {} if dropout is None else {name: dropout for name in DROPOUTS if name in config}
    return configure(open_model(folder, "--init", torch.float32, **changed))


def load_any(folder: Path, *, precision: str) -> Any:
    """A causal model to evaluate: in bf16 where it was saved in it and `precision` is "bf16", else in single precision.

    Raises:
        ModelError: the folder does not hold a whole model, or its tokens see those after them.

    """
    config = _read_config(folder, "--model")
    saved = config.get("dtype") or config.get("torch_dtype")
    dtype = torch.bfloat16 if precision == "bf16" and saved == "bfloat16" else torch.float32
    model = open_model(folder, "--model", dtype).eval()
    with quiet():
        _check_causal(folder, model)
    return model


def files(folder: Path, flag: str, *, scores: bool = False) -> list[Path]:
    """Configuration and weights: the files that make a model what it is. `flag` is what the hints name; `scores` says
    that a reward model may be there.

    Raises:
        ModelError: the folder lacks one of them, holds its weights as pickle only, or another model's config.json; or
            it holds a reward model.
        DamageError: a file is not what the ledger of its run says.

    """
    hint = f"Give {flag} a folder that `corpus train` wrote, or one with config.json and *.safetensors."
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder", hint=hint)
    checks.check_ledger(folder.resolve())
    if not (folder / "config.json").is_file():
        checkpoints = [path.parent for path in folder.glob("checkpoint-*/config.json")]
        newest = max(checkpoints, key=lambda path: (len(path.name), path.name), default=None)
        raise ModelError(
            f"{folder} holds no model: config.json is missing",
            hint=f"It holds checkpoints: type {flag} {newest}" if newest else hint,
        )
    config = _read_config(folder, flag)
    checks.check_code(folder, config)
    if REWARD_SHIFT in config and not scores:
        other = "the run that it started from" if flag == "--init" else "another run; `corpus score` reads this one"
        raise ModelError(f"{folder} is a reward model, which writes no text", hint=f"Give {flag} {other}.")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights and (any(folder.glob("*.bin")) or any(folder.glob("*.pt"))):
        raise ModelError(
            f"{folder} holds its weights as pickle only, and opening a pickle can run any code",
            hint="Where you trust them, load them with transformers and save_pretrained the model again.",
        )
    if not weights:
        raise ModelError(f"{folder} holds no weights: there is no *.safetensors", hint=hint)
    checks.check_layers(folder, config, weights)
    return [folder / "config.json", *weights]


def open_model(
    folder: Path, flag: str, dtype: torch.dtype, *, kind: Any = AutoModelForCausalLM, **changed: float
) -> Any:
    """What `AutoModelForCausalLM`, or another class, makes of a folder; `changed` replaces values of its configuration.

    Raises:
        ModelError: the model cannot be read, lacks weights, or is larger than the memory.

    """
    checks.check_memory(folder / "config.json", _read_config(folder, flag), dtype)
    hint = f"Give {flag} another folder, or copy this one again: it is damaged or incomplete."
    try:
        with quiet():
            model, report = kind.from_pretrained(
                str(folder),
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # they are in the report, and an error below
                output_loading_info=True,
                **changed,
            )
    except Exception as error:  # whatever a damaged config.json or safetensors makes transformers raise
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{folder}: the model cannot be read: {first_line(error)}", hint=hint) from error
    lacking = sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])})
    if lacking:
        raise ModelError(
            f"{folder}: {len(lacking)} weights are missing or have another shape, the first is {lacking[0]}", hint=hint
        )
    return model


def configuration(folder: Path, flag: str) -> Any:
    """The configuration of a folder as `transformers` completes it.

    Raises:
        ModelError: it cannot be read.

    """
    try:
        with quiet():
            return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder} cannot be read: {first_line(error)}", hint=f"Give {flag} a model's folder."
        ) from error


def open_tokenizer(folder: Path) -> Any:
    """What `AutoTokenizer` makes of a folder that `--model` named.

    Raises:
        TokenizerError: it is missing or cannot be read.

    """
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises a bare Exception for a file it cannot read
        raise TokenizerError(
            f"{folder}: the tokenizer is missing or cannot be read: {first_line(error)}",
            hint="Give --model a folder with the tokenizer that the model was trained with, as save_pretrained does.",
        ) from error


def beginning(tokenizer: Any) -> list[int]:
    """The tokens from which a tokenizer has a model read a text; empty where it puts none before it.

    A model of `corpus train` is trained to read a document from the separator on, and its tokenizer puts that there.
    """
    bare, whole = (
        list(tokenizer(_PROBE_TEXT, add_special_tokens=added, verbose=False)["input_ids"]) for added in (False, True)
    )
    places = [at for at in range(len(whole) - len(bare) + 1) if whole[at : at + len(bare)] == bare]
    return whole[: places[0]] if places else []


def check_vocabulary(folder: Path, ids: Iterable[int], rows: int) -> None:
    """Refuse a tokenizer with ids beyond the rows of the model's embedding.

    Raises:
        TokenizerError: it is another model's.

    """
    known = max(ids, default=-1) + 1
    if known > rows:
        raise TokenizerError(
            f"{folder}: the tokenizer has {known:,} tokens, the model {rows:,}: it is another model's",
            hint="Copy the tokenizer that the model was trained with into the folder.",
        )


def context_of(model: Any) -> int | None:
    """Most tokens that a model takes at once; None where its configuration does not say.

    Of a model with LongRoPE it is the length before which the factors of its positions change: beyond it the longest
    text of a batch would decide the positions of all.
    """
    return context_in(model.config)


def context_in(config: Any) -> int | None:
    """The same by a model's configuration."""
    config = config.get_text_config()
    most: int | None = getattr(config, "max_position_embeddings", None)
    rotary = getattr(config, "rope_parameters", None) or {}
    if most and isinstance(rotary, dict) and rotary.get("rope_type") == "longrope":
        return min(most, int(rotary.get("original_max_position_embeddings") or most))
    return most


def _check_causal(folder: Path, model: Any) -> None:
    kind, hint = type(model).__name__, "Give --model a causal model; a masked one has no loss in this sense."
    try:
        ahead = _looks_ahead(model)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"{folder}: this {kind} cannot be run on plain text: {first_line(error)}", hint=hint
        ) from error
    if ahead:
        raise ModelError(f"{folder}: a token of this {kind} sees those after it, so it predicts nothing", hint=hint)


@torch.no_grad()
def _looks_ahead(model: Any) -> bool:
    """Whether another last token changes the scores of those before it, by more than rounding does."""
    ids_rt = (torch.arange(min(context_of(model) or _PROBE_TOKENS, _PROBE_TOKENS)) % 2).repeat(2, 1)
    ids_rt[1, -1] = 1 - ids_rt[0, -1]
    logits_rtv = model(input_ids=ids_rt, attention_mask=torch.ones_like(ids_rt), use_cache=False).logits.float()
    changed_t = (logits_rtv[0] - logits_rtv[1]).abs().amax(-1)
    rounding = _ROUNDING[model.dtype]
    return bool(changed_t[:-1].max() > rounding * max(changed_t[-1].item(), logits_rtv.abs().max().item()))


def _read_config(folder: Path, flag: str) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint=f"Give {flag} the folder of a whole model.") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} cannot be read: it holds no object", hint=f"Give {flag} the folder of a model.")
    return config


def _check_same_tokenizer(folder: Path, config: dict[str, Any], vocab_size: int, tokenizer: Path) -> None:
    if (folder / TASK_MODEL).is_file():
        raise TokenizerError(
            f"{folder} was fine-tuned on a task, and its tokenizer has tokens that the rows do not have",
            hint="Give --init the run that it started from, or --objective task.",
        )
    hint = "A model goes with the tokenizer that it was trained with: pack with that one, or train from random weights."
    if config.get("vocab_size") != vocab_size:
        raise TokenizerError(
            f"{folder} has a vocabulary of {config.get('vocab_size')}, the workspace's tokenizer {vocab_size}",
            hint=hint,
        )
    own = folder / "tokenizer.json"
    if own.is_file() and not tokenizer_files.are_equal(own, tokenizer):
        raise TokenizerError(f"{own} and {tokenizer} are different tokenizers", hint=hint)
