"""Which errors say that a process which trains with this one is gone, and which are a run's own."""

import os
import subprocess
import sys
import threading
from datetime import timedelta

import pytest
import torch.distributed as dist

from kdzoo.suite.run.followers import ranks_without_gpu
from kdzoo.training.processes import is_of_group

LOSES_ITS_PARTNER = """
import os, sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from kdzoo.training.processes import is_of_group

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
network = DistributedDataParallel(torch.nn.Linear(2, 1))
loss = network(torch.ones(1, 2)).sum()
dist.barrier()
if rank:
    os._exit(0)
of_group = []
for act in (loss.backward, lambda: dist.all_reduce(torch.ones(1))):
    try:
        act()
    except Exception as error:
        of_group.append(is_of_group(error))
print(of_group, flush=True)
os._exit(0)
"""


def test_what_gloo_raises_where_a_process_has_died_is_known_in_a_backward_and_in_a_call_of_ones_own(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOSES_ITS_PARTNER, str(rank), str(tmp_path / "meeting")],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for rank in range(2)
    ]
    told, _ = processes[0].communicate(timeout=120)
    processes[1].communicate(timeout=120)
    assert told.split("\n")[0] == "[True, True]"


@pytest.mark.parametrize("text", ["no such file: /data/gloo/a.pt", "NCCL is spelt so", "a [/x/gloo/pair.cc:1] in the middle"])
def test_an_error_that_only_speaks_of_them_is_a_runs_own(text):
    assert not is_of_group(RuntimeError(text))
    assert not is_of_group(ValueError("[/x/gloo/pair.cc:1] of another class"))


def test_what_nccl_and_the_store_raise_is_known_by_its_class():
    assert is_of_group(dist.DistBackendError("unhandled system error"))
    assert is_of_group(dist.DistNetworkError("a timeout"))


def test_every_process_hears_which_of_them_see_no_gpu():
    """As on two machines of two processes each, of which the second has one GPU."""
    store, heard = dist.HashStore(), {}
    sees = [True, True, True, False]

    def tell(rank: int) -> None:
        heard[rank] = ranks_without_gpu(store, rank, len(sees), sees[rank])

    threads = [threading.Thread(target=tell, args=(rank,), daemon=True) for rank in range(len(sees))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timedelta(seconds=30).total_seconds())
    assert heard == {rank: [3] for rank in range(4)}
