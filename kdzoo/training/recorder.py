"""What records a step once and replays it without its Python: the port, and CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch


class Recorder(Protocol):
    """Records what is done on a device. All that it reads and writes has to lie at places that stay."""

    def warm_up(self, act: Callable[[], None]) -> None:
        """Do a step as it will be recorded, without recording it: libraries choose their kernels, states are allocated."""

    def record(self, act: Callable[[], None], streams: Sequence[torch.Generator]) -> Callable[[], None]:
        """Do a step and return what does it again. streams: the generators that it draws from beside the global one.

        Raises RuntimeError for what cannot be recorded, which has not been done then.
        """


def recorder_of(device: torch.device) -> Recorder | str:
    """What records steps on a device; a reason (str) where nothing does."""
    if device.type != "cuda":
        return f"steps are not recorded: CUDA graphs need a GPU, and this is {device.type}"
    return CudaGraphs(device)


class CudaGraphs:
    """Steps as CUDA graphs, each launched in one call. They share their memory, since they are replayed one after the other."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with torch.cuda.device(device):
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, act: Callable[[], None]) -> None:
        with torch.cuda.device(self._device):
            outer = torch.cuda.current_stream()
            self._stream.wait_stream(outer)
            with torch.cuda.stream(self._stream):
                act()
            outer.wait_stream(self._stream)

    def record(self, act: Callable[[], None], streams: Sequence[torch.Generator]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        for stream in streams:
            graph.register_generator_state(stream)
        # Threads that read images ahead may allocate pinned memory meanwhile: only this one is watched.
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
        ):
            act()
        graph.replay()
        return graph.replay
