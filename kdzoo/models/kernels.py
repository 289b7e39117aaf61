"""How a GPU multiplies float32 and whether its kernels are deterministic: set for this process, and told."""

from __future__ import annotations

import os
from typing import Any

import torch

from kdzoo.runs.options import WorkerOptions


def set_kernels(options: WorkerOptions) -> None:
    """Let torch compute on a GPU as the options say; on any other device nothing is changed."""
    if torch.device(options.device).type != "cuda":
        return
    if options.tf32 is not None:
        precision = "tf32" if options.tf32 else "ieee"
        torch.backends.cuda.matmul.fp32_precision = precision
        torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]
    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read with the first product
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
