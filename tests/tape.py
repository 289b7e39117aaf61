"""A recorder of steps for a CPU that replays as a GPU replays a graph: operators alone, on the memory that they were recorded on.

No Python of the step runs again. A number that it took from the host stays what it was, as does every branch that it took.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape:
    """Records what is done below autograd. `recorded` counts what was recorded, `replayed` what was done again."""

    def __init__(self) -> None:
        self.recorded = 0
        self.replayed = 0

    def warm_up(self, act: Callable[[], None]) -> None:
        act()

    def record(self, act: Callable[[], None], streams: Sequence[torch.Generator]) -> Callable[[], None]:
        self.recorded += 1
        with _Operators() as operators:
            act()

        def replay() -> None:
            self.replayed += 1
            operators.run()

        return replay


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def run(self) -> None:
        """Every operator again; what it gives goes to where its result was, unless that is a view of what it was given."""
        for func, args, kwargs, result in self.calls:
            for before, now in zip(tree_leaves(result), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(before, Tensor) and before.untyped_storage().data_ptr() != now.untyped_storage().data_ptr():
                    before.copy_(now)
