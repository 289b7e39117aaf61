"""Cross-entropy with class numbers, and with the shares of the classes where images are mixed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy of (B, K) logits, mean over the samples whose target is not -1, in float32 at least."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    total = F.cross_entropy(wide, targets, ignore_index=-1, label_smoothing=label_smoothing, reduction="sum")
    return total / (targets >= 0).sum().clamp(min=1)


def soft_cross_entropy(logits: Tensor, shares: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy of (B, K) logits with the classes' shares (B, K), in float32 at least.

    The mean over samples weighed by how much of each is labelled, the sum of its shares: 1 but where a part of a mix
    has no label. Smoothing moves that fraction of every share to all classes alike.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    log_q = wide.log_softmax(1)
    labelled = shares.sum(1, keepdim=True)
    smooth = (1 - label_smoothing) * shares + label_smoothing * labelled / shares.shape[1]
    return -(smooth * log_q).sum() / labelled.sum().clamp(min=1)
