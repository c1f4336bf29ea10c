"""From documents and a tokenizer to rows in `packed/` and `chat/`, and to rankings in `ranking/`."""

from corpus.pipeline.pack.stage import PackConfig, run

__all__ = ["PackConfig", "run"]
