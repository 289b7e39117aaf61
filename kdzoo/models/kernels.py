"""How a GPU multiplies float32 and whether its kernels are deterministic: set for this process, and told."""

from __future__ import annotations

import os
from typing import Any

import torch

from kdzoo.errors import InputError
from kdzoo.runs.options import WorkerOptions

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""the variable of the environment that decides whether cuBLAS computes a product the same way twice"""
DETERMINISTIC_WORKSPACES = (":4096:8", ":16:8")
"""its values with which it does"""


def set_workspace() -> None:
    """Let cuBLAS compute every product the same way twice.

    It reads this from the environment once, with the first product on a GPU. Raises InputError where the environment says
    otherwise, and where CUDA has been initialised without it.
    """
    workspace = os.environ.get(WORKSPACE)
    if workspace in DETERMINISTIC_WORKSPACES:
        return
    if workspace is not None:
        raise InputError(f"deterministic: expected {WORKSPACE} unset or one of {', '.join(DETERMINISTIC_WORKSPACES)}, got {workspace!r}")
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        raise InputError(
            f"deterministic: this process has initialised CUDA without {WORKSPACE}, which cuBLAS reads only once; "
            f"set {WORKSPACE}={DETERMINISTIC_WORKSPACES[0]} before Python starts"
        )
    os.environ[WORKSPACE] = DETERMINISTIC_WORKSPACES[0]


def set_kernels(options: WorkerOptions) -> None:
    """Let torch compute on a GPU as the options say; on any other device nothing is changed. Raises InputError as `set_workspace` does."""
    if torch.device(options.device).type != "cuda":
        return
    if options.tf32 is not None:
        precision = "tf32" if options.tf32 else "ieee"
        torch.backends.cuda.matmul.fp32_precision = precision
        torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]
    if options.deterministic:
        set_workspace()
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def kernels_of(device: torch.device) -> dict[str, Any]:
    """How a device multiplies float32, in words, and whether it takes deterministic kernels alone; None each but for a GPU."""
    if device.type != "cuda":
        return {"float32": None, "deterministic": None}
    convolutions, products = torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision  # type: ignore[attr-defined]
    words = ", ".join(
        f"{what} in {'TF32' if how == 'tf32' else 'float32'}" for what, how in (("convolutions", convolutions), ("products", products))
    )
    return {"float32": words, "deterministic": torch.are_deterministic_algorithms_enabled()}
