"""Storage that may be remote: whole objects by key, on disks and in buckets."""

from corpus.pipeline.store.objects import ObjectInfo, Store
from corpus.pipeline.store.opening import is_remote, open_store
from corpus.pipeline.store.retry import Retry

__all__ = ["ObjectInfo", "Retry", "Store", "is_remote", "open_store"]
