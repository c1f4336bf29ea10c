"""A large file to S3 in parts, which are an object only once all are there.

In: an s3fs file system, bucket and key, a file. Out: the object.
Invariants: each part is repeated alone after a failure that can pass, so a file of any size gets through faults at any
rate that a small one gets through; an upload that fails leaves no parts, but one whose process is killed does.
Cost: `AT_ONCE` parts in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from corpus.pipeline.errors import StoreError

AT_ONCE = 4
_MOST_PARTS = 9_000
"""S3 takes ten thousand."""


def tag_of(path: Path, part_bytes: int) -> str:
    """The tag that S3 gives to a file which was sent in such parts: the MD5 of their MD5s, and how many there are."""
    digests = hashlib.md5(usedforsecurity=False)
    size, count = path.stat().st_size, 0
    with path.open("rb") as file:
        while block := file.read(_size_of_part(size, part_bytes)):
            digests.update(hashlib.md5(block, usedforsecurity=False).digest())
            count += 1
    return f"{digests.hexdigest()}-{count}"


def _size_of_part(size: int, part_bytes: int) -> int:
    return max(part_bytes, size // _MOST_PARTS + 1)


def upload(
    files: Any, bucket: str, key: str, path: Path, *, part_bytes: int, repeated: Callable[[Callable[[], Any]], Any]
) -> None:
    """Send a file; `repeated` calls a request until it succeeds. Raises what that raises."""
    place, size = {"Bucket": bucket, "Key": key}, path.stat().st_size
    part_bytes = _size_of_part(size, part_bytes)
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
