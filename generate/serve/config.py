"""Settings of `corpus serve`. Imports no torch, no transformers and no web library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """Where the server listens, and its limits."""

    host: str = "127.0.0.1"
    """Address to listen on; one that other machines reach needs a key."""
    port: int = 8000
    """0 takes a free port."""
    api_key_file: Path | None = None
    """A file with one key a line."""
    batch_size: int = 16
    """Most answers written at once."""
    queue: int = 64
    """Most requests that wait for their turn; more are refused."""
    max_seconds: float = 600.0
    """Most time of one request, from its arrival to the end of its answer."""
    max_idle_seconds: float = 30.0
    """Most time in which a client must send its request, and must read what was written."""
    max_body_bytes: int = 1 << 20
    """Largest body of a request."""
    max_connections: int = 512
    """Most open connections."""
    access_log: bool = False
    """Whether each request is reported in one line."""

    def __post_init__(self) -> None:
        """Raise a ValueError that names the flag."""
        if not self.host:
            raise ValueError("--host must not be empty")
        if not 0 <= self.port < 1 << 16:
            raise ValueError(f"--port must be at least 0 and below 65536, is {self.port}")
        if self.batch_size < 1:
            raise ValueError(f"--batch-size must be at least 1, is {self.batch_size}")
        if self.queue < 0:
            raise ValueError(f"--queue must not be negative, is {self.queue}")
        if not 0 < self.max_seconds < math.inf:
            raise ValueError(f"--max-seconds must be above 0, is {self.max_seconds}")
