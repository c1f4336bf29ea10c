"""Files of keys, and addresses to listen on."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import pytest

from corpus.generate.serve.access import Access, read_keys
from corpus.generate.serve.config import ServeConfig
from corpus.generate.serve.protocol import RequestError
from corpus.generate.serve.server import bind
from corpus.pipeline.errors import ServeError

KEY = "k" * 16
EVERYWHERE = str(ipaddress.IPv4Address(0))


def test_a_file_has_one_key_a_line(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# mine\n{KEY}\n\n  {KEY}2  \n")
    assert read_keys(path) == (KEY, f"{KEY}2")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no key"), (b"# x\n", "no key"), (b"short\n", "fewer than 16"), (b"a b" * 9, "blanks"), ("密" * 20, "ASC")],
)  # fmt: skip
def test_other_files_are_refused(tmp_path: Path, content: bytes | str, message: str) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ServeError, match=message):
        read_keys(path)
    with pytest.raises(ServeError, match="No such file"):
        read_keys(tmp_path / "none")


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"])
def test_own_names(host: str) -> None:
    Access((), host="127.0.0.1").check_page({"host": host})


@pytest.mark.parametrize("host", ["", "evil.example", "127.0.0.1.evil.example", "[::1", "localhost@evil.example"])
def test_other_names_need_a_key(host: str) -> None:
    with pytest.raises(RequestError, match="does not answer for the host"):
        Access((), host="127.0.0.1").check_page({"host": host})
    Access([KEY], host=EVERYWHERE).check_page({"host": host})


def test_an_address_that_others_reach_needs_keys() -> None:
    for host in (EVERYWHERE, "::", "192.0.2.1"):
        with pytest.raises(ServeError, match="reached by other machines"):
            bind(ServeConfig(host=host, port=0), has_keys=False)
    bind(ServeConfig(host=EVERYWHERE, port=0), has_keys=True).close()
    with pytest.raises(ServeError, match="no address is known"):
        bind(ServeConfig(host="a..b", port=0), has_keys=True)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServeError, match=f"127.0.0.1:{port}: Address already in use"):
            bind(ServeConfig(port=port), has_keys=False)
