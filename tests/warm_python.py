"""A Python that has imported torch, timm and kdzoo once and is forked for every command: imports take eight seconds of processor time.

What a fork runs is a process like any other: its own memory, descriptors, environment, working folder, session and signals, a
child of whoever started it, with the exit status that the command has. Forks are made of a process that has done nothing
but import, in one thread, so no command finds what another one left, and a worker finds nothing that its bench has registered.
Four things differ from a new interpreter: all forks of a server share its hash seed, everything is imported before the first
line, the options and variables that Python itself reads as it starts (`-W`, PYTHONPATH, OMP_NUM_THREADS) are the server's, and
what is trained is timed a few times (FORWARDS, STEPS), as what the tests train themselves.
Tests of these and of imports therefore start a new interpreter; where two benches are compared, one side is forked of a
second server, whose hash seed is another one (`OtherHashPopen`), or is a new interpreter (`undisturbed` of tests/suite/conftest.py).
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import gc
import io
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

WORKER = ["-m", "kdzoo.suite.run.worker"]
"""how a bench starts its workers, behind the interpreter"""
FOLLOWER = ["-m", "kdzoo.suite.run.follower"]
"""how a worker starts the processes that train its runs with it"""
PROBE = ["-m", "kdzoo.suite.run.fill_probe"]
"""how a bench starts the processes that measure what fills a GPU"""
SEED = "kdzoo-seed"
"""the name of the process in a bench's group that the bench's workers are forked of; no process of kdzoo's"""
FORWARDS, STEPS = 5, 2
"""how often what is trained is timed: nothing but the times depends on it"""
MOST_DESCRIPTORS = 64
ABOVE = 256
"""descriptors on their way to where they belong are kept above all others"""
NOT_SHARED = ("PYTHONPATH", "PYTHONHASHSEED", "PYTHONWARNINGS", "OMP_NUM_THREADS")
"""variables that are read before the first line of a program"""
SET_PDEATHSIG, SET_NAME, SET_CHILD_SUBREAPER = 1, 15, 36


@dataclass(frozen=True)
class Request:
    """A command of Python's, and where it runs. Its descriptors come beside it: the standard streams, then those of `numbers`."""

    words: list[str]
    folder: str
    environment: dict[str, str]
    session: bool
    unbuffered: bool
    numbers: list[int]


NewPopen = subprocess.Popen
"""starts a new interpreter, also where `subprocess.Popen` stands for one of the classes below"""


def not_shared(environment: dict[str, str]) -> list[str]:
    """The variables that only a new interpreter would read, of those that a command is to have."""
    return [name for name in NOT_SHARED if environment.get(name) != os.environ.get(name)]


class WarmPopen(subprocess.Popen[Any]):
    """`subprocess.Popen`, but that a command of this Python is forked instead of started."""

    server = "first"

    def __init__(self, args: Any, **options: Any) -> None:
        self._session = bool(options.get("start_new_session"))
        super().__init__(args, **options)

    def _execute_child(self, args: Any, *rest: Any) -> None:
        environment = dict(os.environ if rest[5] is None else rest[5])
        if not self._is_forked(args, environment):
            super()._execute_child(args, *rest)  # type: ignore[misc]
            return
        _executable, _preexec_fn, _close_fds, pass_fds, cwd, _env, _startupinfo, _creationflags, _shell, *pipes = rest
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = pipes[:6]
        if other := not_shared(environment):
            raise ValueError(f"only a new interpreter reads another {other[0]}")
        numbers = sorted(pass_fds)
        unbuffered = args[1] == "-u"
        words = list(map(str, args[2 if unbuffered else 1 :]))
        request = Request(words, os.path.abspath(cwd or "."), environment, self._session, unbuffered, numbers)
        streams = [0 if p2cread == -1 else p2cread, 1 if c2pwrite == -1 else c2pwrite, 2 if errwrite == -1 else errwrite]
        connection = _connection(self.server)
        socket.send_fds(connection, [json.dumps(asdict(request)).encode()], [*streams, *numbers])
        self.pid = int(connection.recv(64))
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]

    def _is_forked(self, args: Any, environment: dict[str, str]) -> bool:
        return not isinstance(args, str) and args[0] == sys.executable and (args[1] in ("-m", "-c", "-u") or not args[1].startswith("-"))


class OtherHashPopen(WarmPopen):
    """`WarmPopen` whose forks, and theirs, have another hash seed than all others: what depends on the order of a set comes out."""

    server = "second"


class CommandPopen(WarmPopen):
    """`WarmPopen` for what a forked command starts itself: where a library asks for other variables, it gets a new interpreter."""

    def _is_forked(self, args: Any, environment: dict[str, str]) -> bool:
        return super()._is_forked(args, environment) and not not_shared(environment)


class WorkerPopen(WarmPopen):
    """`subprocess.Popen`, but that the workers of a bench, who trains with them and what measures for them are forked."""

    def _is_forked(self, args: Any, environment: dict[str, str]) -> bool:
        return not isinstance(args, str) and args[0] == sys.executable and list(args[1:3]) in (WORKER, FOLLOWER, PROBE)


def run_warm(command: list[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run` of a command of this Python, with its output captured, as text where it is not `text=False`."""
    timeout = options.pop("timeout", 300)
    with WarmPopen(command, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


_open: dict[tuple[int, str], socket.socket] = {}
"""this process's connections to those that are forked for it, by server; a fork has none of its parent's"""


def _connection(name: str) -> socket.socket:
    key = (os.getpid(), name)
    if key not in _open:
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            server = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        _adopt_orphans()
        _open[key] = mine
        atexit.register(_end, mine, server)
    return _open[key]


def _end(connection: socket.socket, server: subprocess.Popen[bytes]) -> None:
    connection.close()
    server.wait()


def _adopt_orphans() -> None:
    """Make this process the parent of what its forks leave, so that it can wait for them by the system's own call."""
    _control(SET_CHILD_SUBREAPER, 1)


def _control(option: int, value: int | bytes) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def serve(connection: socket.socket) -> tuple[Request, list[int]]:
    """Fork for every request, and return it in the fork; the process that serves ends with its connection."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        message, descriptors, *_ = socket.recv_fds(connection, 1 << 20, MOST_DESCRIPTORS)
        if not message:
            os._exit(0)
        read, write = os.pipe()
        between = os.fork()
        if between == 0:  # its child is an orphan when it ends, and goes to who asked
            if child := os.fork():
                os.write(write, str(child).encode())
                os._exit(0)
            connection.close()
            return Request(**json.loads(message)), descriptors
        os.close(write)
        os.waitpid(between, 0)
        connection.send(os.read(read, 64))
        for descriptor in (read, *descriptors):
            os.close(descriptor)


def become(request: Request, descriptors: list[int]) -> None:
    """Make this fork what a new interpreter would be that runs the command."""
    if request.session:
        os.setsid()
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, ABOVE) for descriptor in descriptors]
    os.closerange(0, ABOVE)
    for place, descriptor in zip([0, 1, 2, *request.numbers], high, strict=True):
        os.dup2(descriptor, place)
        os.close(descriptor)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    _renew_streams(request.unbuffered or bool(os.environ.get("PYTHONUNBUFFERED")))
    _control(SET_NAME, b"python")
    if request.words[:2] != WORKER:
        _keep_a_seed()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _keep_a_seed() -> None:
    """Leave a copy of this process, as it is before the command, for the command's own workers."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        mine.close()
        _control(SET_PDEATHSIG, signal.SIGKILL)  # also where somebody has stopped it
        _control(SET_NAME, SEED.encode())
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(nowhere, descriptor)
        execute(*serve(theirs))
    theirs.close()
    _adopt_orphans()
    _open[os.getpid(), WarmPopen.server] = mine
    subprocess.Popen = CommandPopen  # type: ignore[misc]


def _renew_streams(unbuffered: bool) -> None:
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "utf-8").partition(":")
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        raw = os.fdopen(descriptor, "rb" if descriptor == 0 else "wb", closefd=False)
        stream = io.TextIOWrapper(
            raw,
            encoding=encoding,
            errors="backslashreplace" if name == "stderr" else errors or "strict",
            line_buffering=name == "stderr" or raw.isatty(),
            write_through=unbuffered,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def execute(request: Request, descriptors: list[int]) -> NoReturn:
    """Run a command in this fork, then end it as an interpreter ends, but that no module is taken apart: that takes half a second."""
    become(request, descriptors)
    status = 0
    try:
        _run(*request.words)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = 120
    os._exit(status & 0xFF)


def _run(first: str, *rest: str) -> None:
    if first == "-m":
        sys.argv, sys.path[0] = list(rest), os.getcwd()
        warnings.filterwarnings("ignore", ".*found in sys.modules after import of package", RuntimeWarning)
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        sys.modules["__main__"] = module = ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), module.__dict__)
    else:
        sys.argv, sys.path[0] = [first, *rest], str(Path(first).resolve().parent)
        runpy.run_path(first, run_name="__main__")


def import_everything() -> None:
    """What commands of kdzoo's import, with few timings, and nothing else: no thread, no random number, no operation."""
    import scipy.stats  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import timm  # noqa: F401
    import torch
    import wandb  # noqa: F401

    import kdzoo.cli.app
    import kdzoo.suite.run.bench
    import kdzoo.suite.study  # noqa: F401
    from kdzoo.contract.methods import REGISTRY
    from kdzoo.models.names import load_zoo
    from kdzoo.training import cost, latency

    REGISTRY.names()
    load_zoo()
    latency.REPEATS, cost.TIMED = FORWARDS, STEPS
    if len(list(Path("/proc/self/task").iterdir())) > 1 or torch.cuda.is_initialized():
        raise RuntimeError("a process with several threads, or one that has used a GPU, cannot be forked")


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file
    with contextlib.closing(socket.socket(fileno=int(sys.argv[1]))) as from_tests:
        sys.path.insert(0, "")
        import_everything()
        gc.collect()
        gc.freeze()
        execute(*serve(from_tests))
