"""Small real models for the tests of `corpus sample`: a random GPT-2, and one that looks at its last token only."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from corpus.generate.config import Finish, SampleConfig
from corpus.generate.engine.detokenizer import Vocabulary
from corpus.generate.engine.model import Model, load
from corpus.generate.stage import stream, stream_ids
from corpus.pipeline.tokenizer.special_tokens import ASSISTANT, PAD, SEPARATOR, USER
from corpus.pipeline.workspace.layout import REWARD_SHIFT
from corpus.train.preferences import networks

torch.set_num_threads(1)  # for models this small a second thread is only something to wait for

SENTENCES = (
    "河边的柳树长出了嫩芽，孩子们在草地上放风筝。",
    "昨天夜里下了一场小雨，今天早晨的空气很清新。",
    "奶奶把晒干的豆子装进罐子里，说冬天可以煮汤喝。",
    "火车慢慢开动了，站台上的人还在挥手。🙂🎈",
    "What time does the library open? 图书馆九点开门。",
)
UNUSED_IDS = 5
"""Rows of the embedding beyond the tokenizer, as models padded to a round size have them."""


def save_tokenizer(folder: Path) -> int:
    """A byte-level BPE tokenizer trained on the sentences; returns the number of its tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=[SEPARATOR, PAD, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=SEPARATOR, pad_token=PAD, additional_special_tokens=[USER, ASSISTANT]
    )
    fast.save_pretrained(folder)
    return len(fast)


def save_model(folder: Path, *, context: int = 32, ends: bool = True, **settings: Any) -> None:
    """A random GPT-2 with uneven weights, so that its scores differ clearly from token to token.

    Without `ends` the separator never comes, whatever the temperature and the seed.
    """
    size = save_tokenizer(folder) + UNUSED_IDS
    torch.manual_seed(11)
    small = {"n_embd": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.4, "bos_token_id": 0, "eos_token_id": 0}
    more = settings if ends else settings | {"tie_word_embeddings": False}
    network = GPT2LMHeadModel(GPT2Config(vocab_size=size, n_positions=context, **small | more))
    if not ends:
        with torch.no_grad():
            network.transformer.ln_f.bias[0] = 100
            network.lm_head.weight[:, 0] = 0
            network.lm_head.weight[network.config.eos_token_id, 0] = -100
    network.save_pretrained(folder)


def save_reward(folder: Path, *, context: int = 128, shift: float = 0.5) -> None:
    """A reward model with opinions and the tokenizer of `save_model`."""
    size = save_tokenizer(folder) + UNUSED_IDS
    torch.manual_seed(5)
    small = {"n_embd": 32, "n_layer": 1, "n_head": 2, "initializer_range": 0.4, "bos_token_id": 0, "eos_token_id": 0}
    pad = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(PAD)
    assert pad is not None
    made = networks.reward(GPT2LMHeadModel(GPT2Config(vocab_size=size, n_positions=context, **small)), pad=pad)
    torch.nn.init.normal_(made.score.weight)
    setattr(made.config, REWARD_SHIFT, shift)
    made.save_pretrained(folder)


@functools.cache
def random_model(context: int = 32) -> Model:
    """The random model, loaded; every test may use it, none may change it."""
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder), context=context)
        return load(Path(folder), device="cpu")


def following_model(scores_vv: Tensor, context: int = 512) -> Model:
    """A GPT-2 whose scores of the next token are row `scores_vv[last token]`, whatever came before.

    Its embedding is one-hot and its only layer adds nothing, so the head can be solved for.
    """
    model = random_model(context)
    size = scores_vv.shape[0]
    network = GPT2LMHeadModel(
        GPT2Config(vocab_size=size, n_positions=context, n_embd=size, n_layer=1, n_head=1, tie_word_embeddings=False)
    ).eval()
    with torch.no_grad():
        network.transformer.wte.weight.copy_(torch.eye(size))
        network.transformer.wpe.weight.zero_()
        network.transformer.ln_f.bias.fill_(1)  # else each state would sum to 0: nothing to solve for
        block = network.transformer.h[0]
        for part in (block.attn.c_proj, block.mlp.c_proj):
            part.weight.zero_()
            part.bias.zero_()
        states_vv = network.transformer.ln_f(torch.eye(size)).double()
        network.lm_head.weight.copy_(torch.linalg.solve(states_vv, scores_vv.double()).T.float())
    return dataclasses.replace(model, network=network)


def script_model(successors: Mapping[int, int], context: int = 512) -> Model:
    """A model that all but surely follows each token with its successor."""
    size = random_model().network.config.vocab_size
    scores_vv = torch.zeros(size, size)
    for token, successor in successors.items():
        scores_vv[token, successor] = 100
    return following_model(scores_vv, context)


class Numbers(Vocabulary):
    """A vocabulary in which every token is written as its number, so that texts show exactly which tokens came."""

    def __init__(self) -> None:
        super().__init__(None, frozenset())

    def bytes_of(self, token: int) -> bytes:
        return b"%d " % token


def in_numbers(model: Model) -> Model:
    """The same model, writing numbers."""
    return dataclasses.replace(model, vocabulary=Numbers())


def texts(model: Model, config: SampleConfig) -> dict[tuple[int, int], tuple[str, Finish]]:
    """All samples of a stream, each with how it ended."""
    return _gather(stream(model, config))


def tokens(model: Model, prompts: list[list[int]], config: SampleConfig) -> dict[tuple[int, int], list[int]]:
    """All samples as tokens, without the separator."""
    gathered = _gather(stream_ids(in_numbers(model), prompts, config))
    return {key: [int(number) for number in text.split()] for key, (text, _) in gathered.items()}


def _gather(pieces: Any) -> dict[tuple[int, int], tuple[str, Finish]]:
    joined: dict[tuple[int, int], str] = {}
    finishes: dict[tuple[int, int], Finish] = {}
    for piece in pieces:
        key = (piece.prompt, piece.sample)
        assert key not in finishes, "a piece after the end"
        joined[key] = joined.get(key, "") + piece.text
        if piece.finish:
            finishes[key] = piece.finish
    assert joined.keys() == finishes.keys()
    return {key: (joined[key], finishes[key]) for key in sorted(joined)}
