"""From documents and a tokenizer to rows in `packed/` and `chat/`."""

from corpus.pipeline.pack.stage import PackConfig, run

__all__ = ["PackConfig", "run"]
