"""`torchrun`'s own launcher, whose processes are forked where torchrun starts them by `exec`.

Arguments: the number of processes, and those of `corpus`. A fork of a process that has imported torch runs it; ports,
ranks, the end of all when one fails: all of this is torchrun's.
"""

from __future__ import annotations

import sys

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from corpus.pipeline.cli.main import main


def corpus(*arguments: str) -> None:
    """The command; torchrun takes the return of a function for success."""
    try:
        main(list(arguments))
    except SystemExit as leaving:
        if leaving.code:
            raise


if __name__ == "__main__":
    launch = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=int(sys.argv[1]), start_method="fork", rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", run_id="test", max_restarts=0,
    )  # fmt: skip
    elastic_launch(launch, corpus)(*sys.argv[2:])
