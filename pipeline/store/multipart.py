"""A large file to S3 in parts, which are an object only once all are there.

In: an s3fs file system, bucket and key, a file. Out: the object.
Invariants: each part is repeated alone after a failure that can pass, so a file of any size gets through faults at any
rate that a small one gets through; an upload that fails leaves no parts, but one whose process is killed does.
Cost: `AT_ONCE` parts in memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from corpus.pipeline.errors import StoreError

AT_ONCE = 4
_MOST_PARTS = 9_000
"""S3 takes ten thousand."""


def upload(
    files: Any, bucket: str, key: str, path: Path, *, part_bytes: int, repeated: Callable[[Callable[[], Any]], Any]
) -> None:
    """Send a file; `repeated` calls a request until it succeeds. Raises what that raises."""
    place, size = {"Bucket": bucket, "Key": key}, path.stat().st_size
    part_bytes = max(part_bytes, size // _MOST_PARTS + 1)
    begun = repeated(lambda: files.call_s3("create_multipart_upload", **place))
    place["UploadId"] = begun["UploadId"]

    def send(number: int) -> dict[str, Any]:
        with path.open("rb") as file:
            file.seek(number * part_bytes)
            data = file.read(part_bytes)
        sent = repeated(lambda: files.call_s3("upload_part", PartNumber=number + 1, Body=data, **place))
        return {"PartNumber": number + 1, "ETag": sent["ETag"]}

    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            parts = list(pool.map(send, range(-(-size // part_bytes))))
        repeated(lambda: files.call_s3("complete_multipart_upload", MultipartUpload={"Parts": parts}, **place))
    except BaseException:
        with contextlib.suppress(StoreError):
            repeated(lambda: files.call_s3("abort_multipart_upload", **place))
        raise
