"""Global settings of torch and of this process, which a user's code may move: how each is read, and put back."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn.modules import module as every_module
from torch.overrides import _pop_mode as pop_function_mode
from torch.utils import _device as default_device
from torch.utils._python_dispatch import _pop_mode as pop_dispatch_mode


class GlobalSetting(NamedTuple):
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
    nesting, with_cache, *by_device = state
    while _autocast()[0] > nesting:
        torch.autocast_decrement_nesting()
    while _autocast()[0] < nesting:
        torch.autocast_increment_nesting()
    torch.set_autocast_cache_enabled(with_cache)
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
    GlobalSetting("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
    GlobalSetting(DEVICE, _device, _put_device),
    GlobalSetting(MODE, torch._C._len_torch_function_stack, _put_function_modes),
    GlobalSetting("a dispatch mode of torch that it entered and did not leave", torch._C._len_torch_dispatch_stack, _put_dispatch_modes),
    GlobalSetting("whether gradients are computed", torch.is_grad_enabled, torch.set_grad_enabled),
    GlobalSetting("autocast", _autocast, _put_autocast),
    GlobalSetting("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
    GlobalSetting("torch's deterministic algorithms", _deterministic, _put_deterministic),
    GlobalSetting("a backend of torch (float32 precision, cuDNN, oneDNN)", _backends, _put_backends),
    GlobalSetting("torch's anomaly detection", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    GlobalSetting("hooks on every module", _hooks, _put_hooks),
    GlobalSetting("how denormal numbers are computed", lambda: SMALLEST * 1.0 == 0, torch.set_flush_denormal),
    GlobalSetting("the working folder", _folder, _put_folder),
)

_READERS = tuple(setting.read for setting in SETTINGS)


def current_settings() -> tuple[Any, ...]:
    """All global settings as they are: some ten microseconds."""
    return tuple([read() for read in _READERS])


def put_back(before: tuple[Any, ...]) -> list[str]:
    """Put the settings back; returns the names of those that had changed."""
    if current_settings() == before:
        return []
    changes = {setting.words: now for setting, now, then in zip(SETTINGS, current_settings(), before, strict=True) if now != then}
    if DEVICE in changes:  # which torch keeps as a mode
        changes.pop(MODE, None)
    for setting, then in zip(SETTINGS, before, strict=True):  # all of them: to put one back may move another
        setting.put(then)
    return list(changes)
