"""Passwords and tokens reach the server that they are for, and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from corpus.pipeline.errors import CorpusError
from corpus.pipeline.workspace.layout import Workspace
from tests.support.archives import DATA, A, Said, assert_whole, from_mirrors, from_url, mirrored
from tests.support.server import Server, cut, redirect, status


def test_secrets_of_a_url_are_nowhere(server: Server, workspace: Workspace) -> None:
    said = Said()
    url = server.url(A).replace("://", "://me:hush@")
    server.script(A, status(500), cut(1000))
    from_url(workspace, url, said)
    assert_whole(workspace)
    assert server.requests(A)[0].headers["authorization"].startswith("Basic ")
    written = b"".join(path.read_bytes() for path in workspace.root.rglob("*.json"))
    assert b"hush" not in written
    assert "hush" not in said.text
    server.always(f"{A}?again=hush", status(401))
    with pytest.raises(CorpusError) as caught:
        from_url(workspace, url + "?again=hush", Said())
    assert "hush" not in f"{caught.value.message}{caught.value.hint}"


def test_the_hub_token_goes_to_the_hub_alone_and_only_over_https(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("HF_TOKEN", "hf_hush")
    manifest = mirrored("{hub}/data/baike2018qa.zip")
    hub_path = "/data/baike2018qa.zip"
    with Server({A: DATA, hub_path: DATA}) as store, Server({hub_path: DATA}, certificate=certificate) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url("/"))
        hub.always(hub_path, redirect(store.url(A)))
        said = Said()
        from_mirrors(workspace, manifest, said)
        assert_whole(workspace)
        assert hub.requests(hub_path)[0].headers["authorization"] == "Bearer hf_hush"
        assert "authorization" not in store.requests(A)[0].headers
        monkeypatch.setenv("HF_ENDPOINT", store.url())
        from_mirrors(Workspace(tmp_path / "second"), manifest, said)
        assert "authorization" not in store.requests(hub_path)[0].headers
        written = b"".join(path.read_bytes() for path in workspace.root.rglob("*.json"))
        assert b"hf_hush" not in written
        assert "hf_hush" not in said.text


def make_certificate(folder: Path) -> Path:
    """A key and a certificate for 127.0.0.1 in one file."""
    key, certificate = folder / "key.pem", folder / "both.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    try:
        subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no openssl here to make a certificate with")
    certificate.write_bytes(key.read_bytes() + certificate.read_bytes())
    return certificate
