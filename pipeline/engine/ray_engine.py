"""Ray as the engine of a stage: pieces are core tasks, on this machine or on a cluster.

In: an address, or none for a Ray of this command alone. Out: an engine for `corpus.pipeline.workers.running_on`.
Invariants: no shard passes through Ray: a task reads and writes the workspace, and gives back a receipt. No task
depends on another's object, so nothing is rebuilt by lineage. Ray gives a piece of a lost worker or node out again;
exceptions of a piece are results. All nodes have the driver's versions. Clusters are entered with a token.
Cost: one copy of a stage's work in the object store, and a piece that holds its bytes while it waits; a result is some
hundred bytes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from corpus.pipeline.engine import ray_task
from corpus.pipeline.engine.dispatch import DEADLINE, WINDOW, Deadline, Dispatcher
from corpus.pipeline.engine.versions import differences, versions
from corpus.pipeline.errors import EngineError, WorkerError
from corpus.pipeline.humanize import error_text

Piece = TypeVar("Piece")
Result = TypeVar("Result")
RETRIES = 3
"""How often Ray itself gives out the piece of a lost worker or node again."""
RESULT_BYTES = 64 << 10
"""No stage has a larger result: what is larger belongs into a file of the workspace."""
SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_grpc_client_keepalive_time_ms": "10000",
    "RAY_grpc_client_keepalive_timeout_ms": "10000",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment of all processes of a cluster, where it does not say otherwise: the driver sets it for itself, and for a
Ray that it starts. Keepalive finds a cut cable in half a minute."""
_HINT = "Run the same command again: finished pieces are kept."
_CHECK_S, _SLOTS_S, _PROBE_S, _END_S = 1.0, 5.0, 120.0, 10.0
_STORE_BYTES, _PIECE_BYTES = 256 << 20, 64 << 20
_LOCAL, _STARTS = "local", 3


class RayEngine:
    """A Ray cluster, or a Ray of this command."""

    def __init__(
        self, address: str | None, *, workers: int = 0, tell: Callable[[str], object] = str,
        deadline: Deadline = DEADLINE,
    ) -> None:  # fmt: skip
        """`workers` bounds the slots, 0 does not. `tell` gets a line about what was joined.

        Raises:
            EngineError: Ray is not installed.

        """
        if importlib.util.find_spec("ray") is None:
            raise EngineError("Ray is not installed", hint="Type: pip install 'corpus-zh[ray]'")
        self.address, self.workers, self.deadline = address, workers, deadline
        self.largest_result = 0
        """Bytes of the largest result."""
        self.again = 0
        """Pieces that were handed out again because their deadline had passed."""
        self._tell, self._task, self._slots, self._counted = tell, None, 0, float("-inf")

    @property
    def slots(self) -> int:
        """CPUs of the cluster, or `workers` if that is less."""
        self.join()
        if time.monotonic() > self._counted + _SLOTS_S:
            import ray  # noqa: PLC0415  # an optional package, and slow to import

            self._slots, self._counted = int(ray.cluster_resources().get("CPU", 0)), time.monotonic()
        return min(self._slots, self.workers) if self.workers else self._slots

    def run(self, function: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Generator[Result, None, None]:
        """Apply `function` to every piece and yield the results in order.

        Raises:
            EngineError: the cluster cannot be joined, or a node has other versions.
            WorkerError: a worker died, and so did those that had its piece after it.

        """
        self.join()
        backend = _Tasks(self, ray_task.packed(function))
        dispatcher = Dispatcher[Any, Any, Any](backend, deadline=self.deadline)
        results = dispatcher.run(pieces)
        try:
            yield from results
        finally:
            results.close()
            self.again += dispatcher.again
            backend.end()

    def close(self) -> None:
        """Leave the cluster, and end a Ray that was started."""
        if self._task is not None:
            import ray  # noqa: PLC0415  # as above

            self._task = None
            ray.shutdown()

    def task(self, name: str, work: Any, piece: object) -> Any:
        """Submit a piece; returns its reference."""
        return self._task.remote(name, [work], piece)  # type: ignore[attr-defined]  # Ray's, after `join`

    def join(self) -> None:
        """Join the cluster, or start Ray; a second call does nothing. Raises EngineError."""
        if self._task is not None:
            return
        if "ray" in sys.modules and "RAY_AUTH_MODE" not in os.environ:
            raise EngineError(
                "Ray was imported without a token",
                hint="Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN before `import ray`.",
            )
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        if self.address is None and not os.environ.get("RAY_AUTH_TOKEN"):
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        import ray  # noqa: PLC0415  # as above; it reads the environment when it is imported

        with _own_signals():
            self._init(ray)
        options = {"num_cpus": 1, "max_retries": RETRIES, "retry_exceptions": False, "scheduling_strategy": "SPREAD"}
        self._task = ray.remote(**options)(_apply)
        try:
            nodes = self._check(ray)
        except BaseException:
            self.close()
            raise
        where = f"Ray at {self.address}" if self.address else "Ray on this machine"
        self._tell(f"{where}: {nodes} node{'s' if nodes > 1 else ''}, {self.slots} slots")

    def _init(self, ray: Any) -> None:
        """Join the cluster, or start Ray: on a busy machine that can take longer than the 30 s that Ray waits."""
        for left in reversed(range(1 if self.address else _STARTS)):
            try:
                ray.init(log_to_driver=False, logging_level="ERROR", **self._where())
            except Exception as error:
                ray.shutdown()
                if left:
                    continue
                if self.address is None:
                    raise EngineError(f"Ray does not start on this machine: {error_text(error)}", hint=_HINT) from error
                raise EngineError(
                    f"cannot join Ray at {self.address}: {error_text(error)}",
                    hint="--address is HOST:6379 of the head node; RAY_AUTH_TOKEN, or ~/.ray/auth_token, is its token.",
                ) from error
            return

    def _where(self) -> dict[str, Any]:
        if self.address is not None:
            return {"address": self.address}
        cores = self.workers or len(os.sched_getaffinity(0))
        return {
            "address": _LOCAL, "num_cpus": cores, "include_dashboard": False, "_node_ip_address": "127.0.0.1",
            "object_store_memory": max(_STORE_BYTES, WINDOW * cores * _PIECE_BYTES),
        }  # fmt: skip

    @staticmethod
    def _check(ray: Any) -> int:
        """Compare the versions of all nodes with those here; returns how many nodes there are."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415  # as above

        nodes = [node for node in ray.nodes() if node["Alive"]]
        probe, asked = ray.remote(num_cpus=0, max_retries=1)(ray_task.probe), []
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked.append((node["NodeManagerAddress"], probe.options(scheduling_strategy=there).remote()))
        for address, reference in asked:
            try:
                name, found = ray.get(reference, timeout=_PROBE_S)
            except ray.exceptions.RayTaskError as error:
                raise EngineError(
                    f"node {address} cannot run corpus-zh: {error_text(error.cause)}",
                    hint="Install the same wheel of corpus-zh on all nodes, and run the same command again.",
                ) from error
            except ray.exceptions.RayError as error:
                raise EngineError(f"node {address} gives no answer: {error_text(error)}", hint=_HINT) from error
            if other := differences(versions(), found):
                raise ray_task.other_versions(f"{name} ({address})", other)
        return len(nodes)


def _apply(name: str, work: list[Any], piece: object) -> bytes:
    """The task; the work comes as a reference in a list, so that Ray does not bring it for each piece."""
    import ray  # noqa: PLC0415  # as above

    return ray_task.apply(name, lambda: bytes(ray.get(work[0])), piece)


class _Tasks:
    """The tasks of one run over pieces; their handles are Ray's references."""

    def __init__(self, engine: RayEngine, work: bytes) -> None:
        import ray  # noqa: PLC0415  # as above

        self._engine, self._ray, self._name, self._work = engine, ray, uuid.uuid4().hex, ray.put(work)
        self._futures: dict[Any, Future[bytes]] = {}
        self._ended: SimpleQueue[Any] = SimpleQueue()
        self._cancelled: list[Future[bytes]] = []

    @property
    def slots(self) -> int:
        return self._engine.slots

    def submit(self, piece: object) -> Any:
        reference = self._engine.task(self._name, self._work, piece)
        future: Future[bytes] = reference.future()
        self._futures[reference] = future
        future.add_done_callback(lambda _: self._ended.put(reference))
        return reference

    def wait(self, handles: Collection[Any], timeout_s: float) -> list[Any]:  # noqa: ARG002  # the queue has the handles
        found = list[Any]()
        with contextlib.suppress(Empty):
            found.append(self._ended.get(timeout=min(timeout_s, _CHECK_S)))
            while True:
                found.append(self._ended.get_nowait())
        return found

    def result(self, handle: Any) -> Any:
        errors = self._ray.exceptions
        try:
            data = self._futures.pop(handle).result()
        except errors.RayTaskError as error:
            raise EngineError(f"a Ray worker cannot run corpus-zh: {error_text(error.cause)}") from error
        except errors.OutOfMemoryError as error:
            raise WorkerError(
                "Ray ended a worker because its node was short of memory", hint=f"{_HINT} Use fewer --workers."
            ) from error
        except errors.RayError as error:
            raise WorkerError(
                f"a Ray worker or its node was lost, and so were those that had its piece later: {error_text(error)}",
                hint=_HINT,
            ) from error
        self._engine.largest_result = max(self._engine.largest_result, len(data))
        return ray_task.unpacked(data)

    def cancel(self, handles: Collection[Any]) -> None:
        for handle in tuple(handles):
            if (future := self._futures.pop(handle, None)) is not None:
                self._ray.cancel(handle, force=True)
                self._cancelled.append(future)

    def end(self) -> None:
        """Wait until cancelled pieces have ended, so that none of them writes any more; not for lost nodes."""
        until = time.monotonic() + _END_S
        for future in self._cancelled:
            with contextlib.suppress(Exception):  # whatever became of it
                future.result(timeout=max(0.0, until - time.monotonic()))


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray would replace."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
