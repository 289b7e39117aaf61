"""What a user's code may not do to its neighbours: change what they read, or how torch computes in this process.

Runs of a cohort read the same batch and the same outputs of the teacher. A user's method gets copies of these, so that
nothing it does to them (in place, through `.data` or through numpy) reaches another run; what it changes in place is found by
the tensors' version counters. Global settings are compared after each call of a user's code, and restored.

Not covered: changes to kdzoo's or torch's own objects (patched functions, frames), environment variables, and torch's number
of inter-operation threads, which cannot be set twice.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.modules import module as every_module
from torch.overrides import _pop_mode as pop_function_mode
from torch.utils import _device as default_device
from torch.utils._python_dispatch import _pop_mode as pop_dispatch_mode

from kdzoo.contract.batch import Batch
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import KdzooError


class Interference(KdzooError):
    """A user's code changed what it shares with others; the message names it and what it changed."""


class Setting(NamedTuple):
    """A global setting: how it is called, read, and put back."""

    words: str
    read: Callable[[], Any]
    put: Callable[[Any], Any]


SMALLEST = 5e-324
"""a float that is zero as soon as denormal numbers are flushed"""

_BACKENDS = ("cudnn_enabled", "cudnn_benchmark", "cudnn_deterministic", "mkldnn_enabled")
_PRECISIONS = (
    ("generic", "all"),
    ("cuda", "matmul"),
    ("cuda", "conv"),
    ("cuda", "rnn"),
    ("mkldnn", "matmul"),
    ("mkldnn", "conv"),
    ("mkldnn", "rnn"),
)
"""where torch keeps how exactly float32 is multiplied; its older switches, which `allow_tf32` reads, follow these"""
_MATMUL = _PRECISIONS.index(("mkldnn", "matmul"))


def _autocast() -> tuple[Any, ...]:
    nesting = torch.autocast_increment_nesting() - 1
    torch.autocast_decrement_nesting()
    by_device = [(torch.is_autocast_enabled(name), torch.get_autocast_dtype(name)) for name in ("cpu", "cuda")]
    return (nesting, torch.is_autocast_cache_enabled(), *by_device)


def _put_autocast(state: tuple[Any, ...]) -> None:
    nesting, cached, *by_device = state
    while _autocast()[0] > nesting:
        torch.autocast_decrement_nesting()
    while _autocast()[0] < nesting:
        torch.autocast_increment_nesting()
    torch.set_autocast_cache_enabled(cached)
    for name, (enabled, dtype) in zip(("cpu", "cuda"), by_device, strict=True):
        torch.set_autocast_enabled(name, enabled)
        torch.set_autocast_dtype(name, dtype)
    torch.clear_autocast_cache()


def _deterministic() -> tuple[bool, bool, bool]:
    enabled, softly = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    return enabled, softly, torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]


def _put_deterministic(state: tuple[bool, bool, bool]) -> None:
    torch.use_deterministic_algorithms(state[0], warn_only=state[1])
    torch.utils.deterministic.fill_uninitialized_memory = state[2]  # type: ignore[attr-defined]


def _device() -> Any:
    return default_device.CURRENT_DEVICE


def _put_device(device: Any) -> None:
    torch.set_default_device(device)
    default_device.CURRENT_DEVICE = device  # a `with torch.device(...)` that was entered and not left moves nothing else


def _put_function_modes(count: int) -> None:
    while torch._C._len_torch_function_stack() > count:
        pop_function_mode()  # type: ignore[no-untyped-call]


def _put_dispatch_modes(count: int) -> None:
    while torch._C._len_torch_dispatch_stack() > count:
        pop_dispatch_mode()


def _backends() -> tuple[Any, ...]:
    precision = [torch._C._get_fp32_precision_getter(*place) for place in _PRECISIONS]
    return (*precision, *[getattr(torch._C, f"_get_{name}")() for name in _BACKENDS])


def _put_backends(state: tuple[Any, ...]) -> None:
    torch.set_float32_matmul_precision("medium" if state[_MATMUL] == "bf16" else "high" if "tf32" in state[:2] else "highest")
    for place, value in zip(_PRECISIONS, state, strict=False):
        torch._C._set_fp32_precision_setter(*place, value)
    for name, value in zip(_BACKENDS, state[len(_PRECISIONS) :], strict=True):
        getattr(torch._C, f"_set_{name}")(value)


_HOOKS = ("_global_forward_pre_hooks", "_global_forward_hooks", "_global_backward_pre_hooks", "_global_backward_hooks")


def _hooks() -> tuple[int, ...]:
    return tuple(key for name in _HOOKS for key in getattr(every_module, name))


def _put_hooks(keys: tuple[int, ...]) -> None:
    for name in _HOOKS:
        hooks = getattr(every_module, name)
        for key in set(hooks) - set(keys):
            del hooks[key]


def _folder() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # somebody has removed it
        return None


def _put_folder(path: str | None) -> None:
    if path is not None:
        os.chdir(path)


DEVICE, MODE = "torch's default device", "a mode of torch that it entered and did not leave"

SETTINGS = (
    Setting("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Setting(DEVICE, _device, _put_device),
    Setting(MODE, torch._C._len_torch_function_stack, _put_function_modes),
    Setting("a dispatch mode of torch that it entered and did not leave", torch._C._len_torch_dispatch_stack, _put_dispatch_modes),
    Setting("whether gradients are computed", torch.is_grad_enabled, torch.set_grad_enabled),
    Setting("autocast", _autocast, _put_autocast),
    Setting("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
    Setting("torch's deterministic algorithms", _deterministic, _put_deterministic),
    Setting("a backend of torch (float32 precision, cuDNN, oneDNN)", _backends, _put_backends),
    Setting("torch's anomaly detection", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    Setting("hooks on every module", _hooks, _put_hooks),
    Setting("how denormal numbers are computed", lambda: SMALLEST * 1.0 == 0, torch.set_flush_denormal),
    Setting("the working folder", _folder, _put_folder),
)

_READERS = tuple(setting.read for setting in SETTINGS)


def settings() -> tuple[Any, ...]:
    """All global settings as they are: some ten microseconds."""
    return tuple([read() for read in _READERS])


def put_back(before: tuple[Any, ...]) -> list[str]:
    """Make the settings what they were; in words those that had changed."""
    if settings() == before:
        return []
    changed = {setting.words: now for setting, now, then in zip(SETTINGS, settings(), before, strict=True) if now != then}
    if DEVICE in changed:  # which torch keeps as a mode
        changed.pop(MODE, None)
    for setting, then in zip(SETTINGS, before, strict=True):  # all of them: to put one back may move another
        setting.put(then)
    return list(changed)


class watched:
    """`with watched(who):` restores global settings after a block of a user's code, and keeps it from ending the process.

    Raises Interference with what was changed, unless the block has failed already, and where it calls sys.exit or os._exit.
    Warning filters are restored without a message: libraries that are imported late add some of their own.
    """

    def __init__(self, who: str) -> None:
        self._who = who

    def __enter__(self) -> None:
        self._before, self._filters, self._leave = settings(), list(warnings.filters), os._exit
        os._exit = _staying(os.getpid(), os._exit)  # type: ignore[assignment]

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        os._exit = self._leave
        if warnings.filters != self._filters:
            warnings.filters[:] = self._filters  # type: ignore[index]
            warnings._filters_mutated()  # type: ignore[attr-defined]
        if isinstance(error, SystemExit):
            put_back(self._before)
            raise Interference(f"{self._who} ends the process, with {how_it_ends(error)}") from error
        refuse(self._who, put_back(self._before), error)


def how_it_ends(error: SystemExit) -> str:
    """The call that would have ended the process."""
    return str(error.code) if "os._exit" in str(error.code) else f"sys.exit({'' if error.code is None else error.code})"


def _staying(process: int, leave: Callable[[int], NoReturn]) -> Callable[[int], NoReturn]:
    """An `os._exit` that ends the children of a process, but not the process itself."""

    def stay(status: int) -> NoReturn:
        if os.getpid() != process:
            leave(status)
        raise SystemExit(f"os._exit({status})")

    return stay


def refuse(who: str, changed: list[str], error: BaseException | None = None) -> None:
    """Raise Interference for settings that had changed, unless something else has been raised already."""
    if changed and error is None:
        names = " and ".join(changed)
        raise Interference(f"{who} changed {names} for the whole process, which a plugin must not do; the former value was restored")


@dataclass(frozen=True)
class Inputs:
    """What a user's method reads in one step. The student's outputs are its own run's; everything else is a copy."""

    student: Outputs
    teacher: Outputs
    batch: Batch
    versions: tuple[tuple[str, Tensor, int], ...]

    def changed(self) -> list[str]:
        """What was changed in place since it was handed over."""
        return list(dict.fromkeys(name for name, tensor, version in self.versions if tensor._version != version))


def lend(student: Outputs, teacher: Outputs, batch: Batch, modules: dict[Need, nn.Module]) -> Inputs:
    """Copies of what is shared, made anew for each step; of the teacher's modules once, kept in `modules`."""
    own_teacher, own_batch = _copied(teacher, modules), batch.copied()
    tensors = [*named("the student's", student, without=Need.NETWORK | Need.CLASSIFIER), *named("the teacher's", own_teacher)]
    tensors += [(f"the batch's {name}", tensor) for name, tensor in own_batch.tensors()]
    return Inputs(student, own_teacher, own_batch, tuple([(name, tensor, tensor._version) for name, tensor in tensors]))


def _copied(outputs: Outputs, modules: dict[Need, nn.Module]) -> Outputs:
    def copied(need: Need, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.clone()
        if isinstance(value, list):
            return [copied(need, item) for item in value]
        if isinstance(value, nn.Module):
            return modules.setdefault(need, value) if need in modules else modules.setdefault(need, copy.deepcopy(value))
        if need is Need.NETWORK:
            return replace(value, network=copied(need, value.network))
        return value

    own = outputs.with_values({need: copied(need, value) for need, value in outputs.items()})
    for other, its in outputs.passes():
        own = own.with_pass(other, _copied(its, modules))
    return own


def named(whose: str, outputs: Outputs, without: Need = Need.NOTHING) -> Iterator[tuple[str, Tensor]]:
    """Every tensor with the name under which a method reads it; of a module its weights and statistics."""
    for need, value in outputs.items():
        name = f"{whose} {str(need.name).lower()}"
        if need in without:
            continue
        if need in (Need.NETWORK, Need.CLASSIFIER):
            module = value if isinstance(value, nn.Module) else value.network
            yield from ((name, tensor) for part in (module.parameters(), module.buffers()) for tensor in part)
        elif isinstance(value, list):
            yield from ((f"{name}[{number}]", tensor) for number, tensor in enumerate(value))
        elif isinstance(value, Tensor):
            yield name, value
    for other, its in outputs.passes():
        yield from named(f"{whose} {str(other.name).lower().replace('_', ' ')}'s", its, without)


def call(who: str, act: Callable[[Outputs, Outputs, Batch], Any], inputs: Inputs) -> Any:
    """What a user's method returns for its inputs; raises Interference where it changed that, or a global setting."""
    with watched(who):
        result = act(inputs.student, inputs.teacher, inputs.batch)
    if changed := inputs.changed():
        raise Interference(f"{who} changed {' and '.join(changed)} in place, which other runs read too: clone first, or write a new tensor")
    return result


def build(who: str, act: Callable[[Shapes, Shapes, DataFacts], nn.Module], student: Shapes, teacher: Shapes, facts: DataFacts) -> nn.Module:
    """What a user's method builds from copies of what all runs share; raises Interference as `call` does."""
    own = facts.copied()
    ours, theirs = (replace(shape, classifier=copy.deepcopy(shape.classifier)) for shape in (student, teacher))
    changes = own.changes
    with watched(who):
        module = act(ours, theirs, own)
    if own.changes != changes:
        raise Interference(f"{who} changed the training data's targets in place, which other runs read too: clone them first")
    return module
