"""SeaweedFS, an S3 server, on 127.0.0.1: `make s3` installs it.

The main part serves on a network of its own: arguments are a folder, and the address there. `READY` holds the URL.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

KEY, SECRET = "corpus-test", "corpus-test-secret"
BUCKET = "rows"
_SERVERS = ("master", "volume", "filer", "s3")
_START_S = 120.0
READY = "ready"


def _program() -> str | None:
    return shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def missing() -> str:
    """What is not installed, for the reason of a skip; empty if nothing."""
    if _program() is None or importlib.util.find_spec("s3fs") is None:
        return "SeaweedFS and s3fs are not installed: make s3"
    return ""


@contextlib.contextmanager
def serving(folder: Path, host: str = "127.0.0.1") -> Iterator[tuple[str, int]]:
    """A server with its data in a folder, and the bucket `BUCKET`; gives its address. Skips where it is not there."""
    weed = _program()
    if weed is None or missing():
        pytest.skip(missing())
    identity = {"name": "test", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    ports = _free_ports(2 * len(_SERVERS) + 2)
    flags = [f"-{name}.port={port}" for name, port in zip(_SERVERS, ports, strict=False)]
    flags += [f"-{name}.port.grpc={port}" for name, port in zip(_SERVERS, ports[len(_SERVERS) :], strict=False)]
    command = [
        weed, "server", f"-dir={folder / 'data'}", f"-ip={host}", f"-ip.bind={host}", "-filer", "-s3",
        f"-s3.config={folder / 's3.json'}", "-s3.autoCreateBucket=false",
        "-master.telemetry=false", "-master.volumeSizeLimitMB=64",
        f"-s3.port.iceberg={ports[-2]}", f"-s3.port.lance={ports[-1]}", *flags,
    ]  # fmt: skip
    address = (host, ports[3])
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait(address, process, folder / "log")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def environment(endpoint: str) -> dict[str, str]:
    """The variables by which s3fs finds a server and its credentials."""
    return {
        "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _wait(address: tuple[str, int], process: subprocess.Popen[bytes], log: Path) -> None:
    """Until a bucket can be made: the server answers before it can write."""
    import s3fs

    files, until = None, time.monotonic() + _START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        with contextlib.suppress(URLError, ConnectionError):
            with contextlib.suppress(HTTPError):  # it refuses who has no credentials, so it is up
                urlopen(f"http://{address[0]}:{address[1]}/", timeout=5).close()
            url = f"http://{address[0]}:{address[1]}"
            files = files or s3fs.S3FileSystem(endpoint_url=url, key=KEY, secret=SECRET, skip_instance_cache=True)
            with contextlib.suppress(OSError):
                if not files.exists(BUCKET):
                    files.mkdir(BUCKET)
                files.pipe_file(f"{BUCKET}/ready", b"1")
                files.rm_file(f"{BUCKET}/ready")
                return
        time.sleep(0.2)
    raise AssertionError(f"SeaweedFS did not start:\n{log.read_text(errors='replace')[-2000:]}")


if __name__ == "__main__":
    with serving(Path(sys.argv[1]), sys.argv[2]) as served:
        (Path(sys.argv[1]) / READY).write_text(f"http://{served[0]}:{served[1]}")
        signal.pause()
