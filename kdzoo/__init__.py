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
    from kdzoo.api import bench, reproduce
    from kdzoo.bench_result import BenchResult
    from kdzoo.contract.batch import Batch, Losses, Progress
    from kdzoo.contract.card import Coefficients, PretrainStage, Setting, Source
    from kdzoo.contract.method import LossWithAux, Method, ParamGroup
    from kdzoo.contract.methods import create_method
    from kdzoo.contract.needs import Need, Needs, Pass
    from kdzoo.contract.outputs import Outputs
    from kdzoo.contract.plugins import load_plugin
    from kdzoo.contract.projection import projector
    from kdzoo.contract.register import register
    from kdzoo.contract.shapes import DataFacts, Shapes
    from kdzoo.data.canonical import FurtherColumn, Raw
    from kdzoo.data.sources import register_source
    from kdzoo.distiller.distiller import Distiller
    from kdzoo.models.names import register_network
    from kdzoo.models.pairs import Pair, register_pair
    from kdzoo.runs.options import Execution
    from kdzoo.suite.distill.distill import distill
    from kdzoo.suite.plan.recipe_files import register_recipe
    from kdzoo.training.calibration import calibrate_biases

_HOMES = {
    **dict.fromkeys(["bench", "reproduce"], "kdzoo.api"),
    "BenchResult": "kdzoo.bench_result",
    "calibrate_biases": "kdzoo.training.calibration",
    "Distiller": "kdzoo.distiller.distiller",
    "distill": "kdzoo.suite.distill.distill",
    "functional": "kdzoo.functional",
    "projector": "kdzoo.contract.projection",
    **dict.fromkeys(["Coefficients", "PretrainStage", "Setting", "Source"], "kdzoo.contract.card"),
    **dict.fromkeys(["LossWithAux", "Method", "ParamGroup"], "kdzoo.contract.method"),
    "create_method": "kdzoo.contract.methods",
    "load_plugin": "kdzoo.contract.plugins",
    "register": "kdzoo.contract.register",
    **dict.fromkeys(["Pair", "register_pair"], "kdzoo.models.pairs"),
    "FurtherColumn": "kdzoo.data.canonical",
    "Raw": "kdzoo.data.canonical",
    "register_source": "kdzoo.data.sources",
    "Execution": "kdzoo.runs.options",
    "register_network": "kdzoo.models.names",
    "register_recipe": "kdzoo.suite.plan.recipe_files",
    **dict.fromkeys(["Batch", "Losses", "Progress"], "kdzoo.contract.batch"),
    **dict.fromkeys(["Need", "Needs", "Pass"], "kdzoo.contract.needs"),
    "Outputs": "kdzoo.contract.outputs",
    **dict.fromkeys(["DataFacts", "Shapes"], "kdzoo.contract.shapes"),
}
"""where the names above live"""

__all__ = [
    "Batch",
    "BenchResult",
    "Coefficients",
    "DataFacts",
    "Distiller",
    "Execution",
    "FurtherColumn",
    "InputError",
    "KdzooError",
    "LossWithAux",
    "Losses",
    "Method",
    "Need",
    "Needs",
    "Outputs",
    "Pair",
    "ParamGroup",
    "Pass",
    "PretrainStage",
    "Progress",
    "Raw",
    "Setting",
    "Shapes",
    "Source",
    "__version__",
    "bench",
    "calibrate_biases",
    "create_method",
    "distill",
    "functional",
    "load_plugin",
    "projector",
    "register",
    "register_network",
    "register_pair",
    "register_recipe",
    "register_source",
    "reproduce",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kdzoo' has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    value = home if name == "functional" else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names alone."""
    return sorted(__all__)
