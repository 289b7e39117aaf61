"""Stages and logits of a plain nn.Module: which of its modules give them, found by one trial forward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from kdzoo.errors import InputError

Tap = tuple[str, int]
"""a module by name, and which of its calls in one forward (from 0): one pooling or ReLU may serve several places"""


@dataclass(frozen=True)
class Layout:
    """stages: whose outputs are the stages, shallow to deep; head: the last linear layer to run, None where there is none."""

    stages: tuple[Tap, ...] = ()
    head: str | None = None


def find_layout(model: nn.Module, act: Callable[[], object]) -> Layout:
    """Read a model's layout off one forward, `act`.

    A stage is the last four-dimensional output at a resolution above 1x1 where a convolution ran, before the last
    linear layer: a block's own output counts, so what it adds or activates without a module is in it; an output that
    is only pooled is none.
    """
    calls: Counter[str] = Counter()
    last: dict[tuple[int, int], Tap] = {}
    convolved: set[tuple[int, int]] = set()
    layouts: list[Layout] = []

    def note(name: str, module: nn.Module, output: object) -> None:
        tap = (name, calls[name])
        calls[name] += 1
        if isinstance(module, nn.Linear):
            layouts.append(Layout(tuple(last[size] for size in last if size in convolved), name))
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[-2:]) > 1:
            size = (output.shape[-2], output.shape[-1])
            last.pop(size, None)  # so that sizes stay in the order of their last maps
            last[size] = tap
            if isinstance(module, nn.Conv2d):
                convolved.add(size)

    with call_hooks(model, [name for name, _ in model.named_modules() if name], note):
        act()
    return layouts[-1] if layouts else Layout(tuple(last[size] for size in last if size in convolved))


@contextmanager
def call_hooks(model: nn.Module, names: list[str], note: Callable[[str, nn.Module, Any], None]) -> Any:
    """Call `note` with every call of the named modules, in order, and its output."""

    def hook(name: str) -> Callable[..., None]:
        def call_note(module: nn.Module, args: object, output: object) -> None:
            note(name, module, output)

        return call_note

    with ExitStack() as hooks:
        for name in names:
            hooks.callback(model.get_submodule(name).register_forward_hook(hook(name)).remove)
        yield


def forward_with_taps(model: nn.Module, x: Tensor, taps: tuple[Tap, ...]) -> tuple[Tensor, list[Tensor]]:
    """The logits and the tapped outputs of one forward."""
    calls: Counter[str] = Counter()
    maps: dict[Tap, Tensor] = {}

    def note(name: str, module: nn.Module, output: Tensor) -> None:
        if (name, calls[name]) in taps:
            maps[name, calls[name]] = output
        calls[name] += 1

    with call_hooks(model, list(dict.fromkeys(name for name, _ in taps)), note):
        output = model(x)
    return scores_of(output, type(model).__name__), [maps[tap] for tap in taps]


def scores_of(output: object, name: str) -> Tensor:
    """The class scores in what a model gives: a tensor, the `logits` of an object or a dict, or the first of a tuple or list.

    The first counts where no other member has its shape. Raises InputError for anything else, and where that is no tensor
    of floating-point numbers.
    """
    scores = output
    if isinstance(output, Mapping):
        if "logits" not in output:
            keys = ", ".join(map(repr, output)) or "nothing"
            raise InputError(f"{name}: returns a dict with {keys}; expected class scores, or a dict with 'logits'")
        scores = output["logits"]
    elif not isinstance(output, Tensor) and hasattr(output, "logits"):
        scores = output.logits
    elif isinstance(output, tuple | list):
        tensors = [one for one in output if isinstance(one, Tensor)]
        if not output or not isinstance(output[0], Tensor) or output[0].ndim != 2:
            raise InputError(f"{name}: returns a {type(output).__name__} of {_words(output)}; expected class scores (N, K), alone or first")
        if any(one.shape == output[0].shape for one in tensors[1:]):
            raise InputError(f"{name}: returns a {type(output).__name__} of {_words(output)}; which are the class scores? Return only them")
        scores = output[0]
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        what = f"a tensor of {scores.dtype}" if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
        raise InputError(f"{name}: returns {what}; expected class scores, a tensor (N, K) of floating-point numbers")
    return scores


def _words(values: Sequence[object]) -> str:
    """What a tuple or list holds, in a few words."""
    words = [f"a tensor {tuple(one.shape)}" if isinstance(one, Tensor) else f"a {type(one).__name__}" for one in values[:3]]
    return ", ".join(words) + (", ..." if len(values) > 3 else "") if words else "nothing"
