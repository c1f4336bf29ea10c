"""Storage that may be remote: whole objects by key, on disks and in buckets; a cache of files; workspaces there."""

from corpus.pipeline.store.ahead import FetchAhead, FileNeed, Reader, wait_for
from corpus.pipeline.store.cache import Cache, CachedFile, View, open_cache
from corpus.pipeline.store.claims import Timing
from corpus.pipeline.store.objects import ObjectInfo, Store
from corpus.pipeline.store.opening import is_remote, open_store
from corpus.pipeline.store.remote_workspace import on_node, open_workspace
from corpus.pipeline.store.retry import Retry

__all__ = [
    "Cache", "CachedFile", "FetchAhead", "FileNeed", "ObjectInfo", "Reader", "Retry", "Store", "Timing", "View",
    "is_remote", "on_node", "open_cache", "open_store", "open_workspace", "wait_for",
]  # fmt: skip
