"""To the Hugging Face hub: a finished folder becomes a commit in a repository."""

from corpus.pipeline.hub.push import Push, PushConfig, plan, upload

__all__ = ["Push", "PushConfig", "plan", "upload"]
