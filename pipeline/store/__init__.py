"""Storage that may be remote: whole objects by key, on disks and in buckets, and a cache of files on disk."""

from corpus.pipeline.store.ahead import FetchAhead, FileNeed, Reader, wait_for
from corpus.pipeline.store.cache import Cache, CachedFile, View, open_cache
from corpus.pipeline.store.objects import ObjectInfo, Store
from corpus.pipeline.store.opening import is_remote, open_store
from corpus.pipeline.store.retry import Retry

__all__ = [
    "Cache", "CachedFile", "FetchAhead", "FileNeed", "ObjectInfo", "Reader", "Retry", "Store", "View", "is_remote",
    "open_cache", "open_store", "wait_for",
]  # fmt: skip
