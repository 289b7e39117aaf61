"""kdzoo: knowledge-distillation methods in PyTorch, and the benchmark that ranks them honestly."""

from __future__ import annotations

from kdzoo.version import VERSION as __version__

__all__ = ["__version__"]
