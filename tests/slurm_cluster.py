"""A Slurm of one-CPU nodes on this machine: its own munge, controller and node daemons in a folder, on the loopback, as root."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")


def why_not() -> str | None:
    """Why no Slurm can be started here; None where it can."""
    if missing := [name for name in NEEDED if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]:
        return f"Slurm is not installed ({', '.join(missing)}): apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "Slurm's daemons have to be started by root"


@dataclass(frozen=True)
class SlurmCluster:
    """A running Slurm. environment: what its commands need besides this process's own."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:/usr/sbin"}

    def ask(self, *command: str) -> str:
        """What a command of Slurm's prints."""
        return subprocess.run(command, env={**os.environ, **self.environment}, check=True, capture_output=True, text=True).stdout

    def pid(self, daemon: str) -> int:
        return int((self.folder / f"run/{daemon}.pid").read_text())


@contextlib.contextmanager
def slurm_cluster(folder: Path, nodes: int = 2) -> Iterator[SlurmCluster]:
    """Start a Slurm whose jobs are requeued when they are preempted or their node is lost; end it and all of its jobs on leaving."""
    for name in ("state", "log", "run", *(f"spool/n{number}" for number in range(1, nodes + 1))):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    key = folder / "run/munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    (folder / "slurm.conf").write_text(configuration(folder, free_ports(nodes + 1)))
    cluster = SlurmCluster(folder)
    try:
        own = [
            f"--key-file={key}",
            f"--socket={folder}/run/munge.socket",
            f"--pid-file={folder}/run/munged.pid",
            f"--log-file={folder}/log/munged.log",
        ]
        cluster.ask("munged", *own, f"--seed-file={folder}/run/munged.seed", "--num-threads=2", "--force")
        cluster.ask("slurmctld", "-c")
        for number in range(1, nodes + 1):
            cluster.ask("slurmd", "-N", f"n{number}")
        deadline = time.monotonic() + 60
        while len(cluster.ask("sinfo", "-h", "-N", "-p", "work", "-t", "idle", "-o", "%N").split()) < nodes:
            assert time.monotonic() < deadline, cluster.ask("sinfo", "-N", "-l")
            time.sleep(0.2)
        yield cluster
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            cluster.ask("scancel", "--user=root", "--signal=KILL", "--full")
        for daemon in (*(f"slurmd.n{number}" for number in range(1, nodes + 1)), "slurmctld", "munged"):
            end(folder / f"run/{daemon}.pid")


def end(file: Path) -> None:
    """End the daemon of a file with its process id."""
    with contextlib.suppress(OSError, ValueError):
        process = int(file.read_text())
        os.kill(process, signal.SIGTERM)
        deadline = time.monotonic() + 5
        while not is_gone(process):
            if time.monotonic() > deadline:
                os.kill(process, signal.SIGKILL)
                return
            time.sleep(0.05)


def is_gone(process: int) -> bool:
    """Whether a process has ended; one whose parent does not ask for its status stays as a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def configuration(folder: Path, ports: list[int]) -> str:
    """A requeued job waits until its credential expires: 5 seconds, the least that Slurm takes."""
    host = socket.gethostname().partition(".")[0]
    controller, *of_nodes = ports
    nodes = "\n".join(
        f"NodeName=n{number} NodeAddr=127.0.0.1 NodeHostname={host} Port={port} CPUs=1 RealMemory=3000 State=UNKNOWN"
        for number, port in enumerate(of_nodes, start=1)
    )
    partition = f"Nodes=n[1-{len(of_nodes)}] MaxTime=60 State=UP OverSubscribe=NO"
    return f"""
ClusterName=kdzoo
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={controller}
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0,requeue_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=10
SlurmctldTimeout=10
InactiveLimit=0
MinJobAge=300
KillWait=5
MpiDefault=none
SwitchType=switch/none
DebugFlags=NO_CONF_HASH
{nodes}
PartitionName=work Default=YES PriorityTier=1 GraceTime=30 PreemptMode=REQUEUE {partition}
PartitionName=urgent Default=NO PriorityTier=10 PreemptMode=OFF {partition}
"""
