"""Another process of a run that dies or falls silent is named, and the others end."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from corpus.pipeline.errors import PeerError
from corpus.train.model import device as devices
from corpus.train.run.peers import join, peer_errors

TIMEOUT_S = 2


def meet(monkeypatch: pytest.MonkeyPatch, rank: int, port: int) -> devices.Device:
    """What torchrun sets for one of two processes."""
    settings = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank}
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    device = devices.choose("cpu", "fp32")
    join(device, TIMEOUT_S)
    return device


@pytest.mark.parametrize(("is_silent", "words"), [(False, "onnection"), (True, "[Tt]imed out")])
def test_a_lost_process_is_named(is_silent: bool, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    gate, open_end = os.pipe()
    other = os.fork()
    if other == 0:  # the process that dies, or says nothing until its pipe is closed
        os.close(open_end)
        meet(monkeypatch, 1, port)
        if is_silent:
            os.read(gate, 1)
        os._exit(9)
    try:
        device = meet(monkeypatch, 0, port)
        with pytest.raises(PeerError, match=rf"^process 0 of 2 lost the others: .*{words}") as caught, \
                peer_errors(device, TIMEOUT_S):  # fmt: skip
            dist.all_reduce(torch.ones(1))
    finally:
        os.close(open_end)
        os.close(gate)
        os.waitpid(other, 0)
        dist.destroy_process_group()
    assert "2 s (--ddp-timeout)" in caught.value.hint


def test_other_errors_pass() -> None:
    device = devices.choose("cpu", "fp32")
    with pytest.raises(RuntimeError, match=r"^a shape is wrong$"), peer_errors(device, TIMEOUT_S):
        raise RuntimeError("a shape is wrong")
