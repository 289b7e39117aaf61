"""Which GPUs worker processes share, as CUDA_VISIBLE_DEVICES names them. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence

from kdzoo.errors import InputError

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus(count: int, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The names of `count` GPUs that torch sees: those that the environment allows, else 0, 1, ..."""
    visible = environment.get(VISIBLE)
    names = map(str, range(count)) if visible is None else (name.strip() for name in visible.split(","))
    return tuple(names)[:count]


def first_gpu(device: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The GPU of a worker that starts before the GPUs are counted; none where its device is the CPU, or one GPU by number."""
    if device not in ("auto", "cuda"):
        return ()
    return tuple(name for name in visible_gpus(1, environment) if name not in ("", "-1"))


def environment_of(worker: int, gpus: Sequence[str], each: int = 1) -> dict[str, str]:
    """What the environment of a worker adds: the GPUs that it sees, as many as it has processes (`each`), taken in turn."""
    return {VISIBLE: ",".join(gpus[(worker * each + number) % len(gpus)] for number in range(each))} if gpus else {}


def see_own_gpu(local_rank: int, environment: MutableMapping[str, str]) -> None:
    """Let this process see one GPU alone, before torch counts them; raises InputError where there are fewer than processes."""
    visible = environment.get(VISIBLE)
    names = None if visible is None else [name.strip() for name in visible.split(",") if name.strip()]
    if names is None:
        environment[VISIBLE] = str(local_rank)
    elif local_rank < len(names):
        environment[VISIBLE] = names[local_rank]
    elif names:
        raise InputError(f"{VISIBLE}: names {len(names)} GPUs, and torchrun has started more processes on this machine; one GPU for each")
