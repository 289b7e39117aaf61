"""Digests that tell one network from another: of a module given from Python, and of all that decides a network's outputs."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path

import torch
from torch import nn

from kdzoo.contract.code_version import modules_beside
from kdzoo.models.network import Network


def module_name(module: nn.Module) -> str:
    """`module:<class>-<12 hex>` of its structure as printed and its weights: another state is another network."""
    digest = hashlib.sha256(str(module).encode())
    for key, value in module.state_dict().items():
        content = value.detach().cpu().contiguous()
        digest.update(f"{key} {content.dtype} {tuple(content.shape)}".encode())
        digest.update(content.reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"module:{type(module).__name__}-{digest.hexdigest()[:12]}"


def identity(network: Network) -> str:
    """A digest of all that decides a network's outputs: its weights, its structure, its code, how it takes images."""
    import timm  # here: plans import this file for module_name alone

    digest = hashlib.sha256(repr(network).encode())
    for name, value in sorted({**network.state_dict(), **dict(network.named_buffers())}.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    for one in (module for module in network.modules() if type(module) is Network):
        digest.update(repr((one.channels, one.image_size, one.taps, one.layout, one.gives)).encode())
    digest.update(f"torch {torch.__version__} timm {timm.__version__}".encode())
    for file in sorted({inspect.getsourcefile(type(module)) or "" for module in network.modules() if _has_source(type(module))}):
        digest.update(Path(file).read_bytes())
    helpers: dict[str, str] = {}
    for cls in {type(module) for module in network.modules()}:
        if _has_source(cls) and cls.__module__.partition(".")[0] != "kdzoo":
            helpers |= modules_beside(cls)
    for name, text in sorted(helpers.items()):
        digest.update(f"{name}\n{text}\n".encode())
    return digest.hexdigest()


def _has_source(cls: type) -> bool:
    """Whether a class has a source file outside torch and timm, for which their versions stand."""
    if cls.__module__.partition(".")[0] in ("torch", "timm"):
        return False
    try:
        return Path(inspect.getsourcefile(cls) or "").is_file()
    except (TypeError, OSError):  # a class of a notebook or of an interactive session: its structure and weights must do
        return False
