"""A real Slurm on this machine: munged, slurmctld and slurmd as root, in namespaces of their own.

In: an empty folder. Out: a cluster of one node that takes `sbatch`, `scancel`, `scontrol` and `squeue`.
Invariants: the network namespace leads nowhere, so nothing listens outside it (it has a second address, without which
Slurm finds none to listen on); the daemons and all jobs are in a
process namespace that ends with this process.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

import psutil

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "squeue", "unshare", "nsenter", "ip")
NAMESPACES = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0
ReturnToService=2
KillWait=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=32000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
START = """
set -e
ip link set lo up
ip link add other type veth peer name end
ip address add 192.0.2.1/24 dev other
ip link set other up
ip link set end up
munged --force --key-file={folder}/key --socket={folder}/munge.socket --pid-file={folder}/munged.pid \\
    --log-file={folder}/munged.log --seed-file={folder}/seed --num-threads=1
slurmctld -D > {folder}/slurmctld.log 2>&1 &
slurmd -D > {folder}/slurmd.log 2>&1 &
wait
"""


def missing() -> str:
    """What a Slurm here lacks, for the reason of a skip; empty if nothing."""
    found = [name for name in NEEDED if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if found:
        return f"{', '.join(found)} not installed (Debian: slurm-wlm munge iproute2 util-linux)"
    tried = subprocess.run([*NAMESPACES, "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() if tried.returncode else ""


class Slurm:
    """The cluster, while the block runs."""

    def __init__(self, folder: Path, cpus: int) -> None:
        self.folder = folder
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        self.environment["PATH"] += ":/usr/sbin:/sbin"
        for name in ("state", "spool"):
            (folder / name).mkdir()
        host = socket.gethostname().partition(".")[0]
        (folder / "slurm.conf").write_text(CONF.format(folder=folder, host=host, cpus=cpus))
        (folder / "key").write_bytes(os.urandom(128))
        (folder / "key").chmod(0o600)

    def __enter__(self) -> Self:
        script = START.format(folder=self.folder)
        self._outer = subprocess.Popen([*NAMESPACES, "bash", "-c", script], env=self.environment)
        deadline = time.monotonic() + 120
        while not self._is_idle():
            assert self._outer.poll() is None, self.logs()
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.5)
        return self

    def __exit__(self, *_: object) -> None:
        self._outer.kill()
        self._outer.wait()

    def run(self, *arguments: object, check: bool = True) -> str:
        """What a command prints that is run where the cluster can be reached."""
        (inner,) = psutil.Process(self._outer.pid).children()
        inside = ["nsenter", "--target", str(inner.pid), "--net", "--pid", "--mount"]
        done = subprocess.run(
            [*inside, *map(str, arguments)], env=self.environment, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{arguments}: {done.stderr}\n{self.logs()}"
        return done.stdout.strip()

    def jobs(self) -> list[tuple[str, str]]:
        """Id and state of the jobs that wait or run; of an array each by itself."""
        lines = self.run("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return [(name, state) for name, state in map(str.split, lines)]

    def logs(self) -> str:
        """What the daemons wrote last."""
        return "\n".join(path.read_text(errors="replace")[-1500:] for path in sorted(self.folder.glob("*.log")))

    def _is_idle(self) -> bool:
        if not psutil.Process(self._outer.pid).children():
            return False
        return "idle" in self.run("sinfo", "--noheader", "--format=%t", check=False)
