"""kdzoo: knowledge-distillation methods in PyTorch, and the benchmark that ranks them honestly.

Names are loaded when they are first used, so that importing kdzoo is fast and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kdzoo.errors import InputError, KdzooError
from kdzoo.version import VERSION as __version__

if TYPE_CHECKING:
    from kdzoo import functional
    from kdzoo.api import bench
    from kdzoo.method import Coefficients, Method, Setting, Source, create_method, load_plugin, register
    from kdzoo.shortway import distill
    from kdzoo.signals import Batch, DataFacts, Need, Needs, Outputs, Shapes

_HOMES = {
    "bench": "kdzoo.api",
    "distill": "kdzoo.shortway",
    "functional": "kdzoo.functional",
    **dict.fromkeys(["Coefficients", "Method", "Setting", "Source", "create_method", "load_plugin", "register"], "kdzoo.method"),
    **dict.fromkeys(["Batch", "DataFacts", "Need", "Needs", "Outputs", "Shapes"], "kdzoo.signals"),
}
"""where the names above live"""

__all__ = [
    "Batch",
    "Coefficients",
    "DataFacts",
    "InputError",
    "KdzooError",
    "Method",
    "Need",
    "Needs",
    "Outputs",
    "Setting",
    "Shapes",
    "Source",
    "__version__",
    "bench",
    "create_method",
    "distill",
    "functional",
    "load_plugin",
    "register",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kdzoo' has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    found = home if _HOMES[name] == f"kdzoo.{name}" else getattr(home, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
