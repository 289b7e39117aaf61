"""A student as an ONNX graph, and how far its scores are from those of the student itself."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kdzoo.contract.needs import Need
from kdzoo.contract.objective import Deployed
from kdzoo.data.dataset import Subset
from kdzoo.data.loader import fetch
from kdzoo.data.views import evaluation_view
from kdzoo.errors import InputError, WorkFailed
from kdzoo.runs.atomic import write_bytes
from kdzoo.suite.export.reading import Reading
from kdzoo.suite.export.student import Student

INPUT, SCORES, EMBEDDINGS = "images", "scores", "embeddings"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
BATCH = 16
"""images of a forward in a check"""
TOLERANCE = 1e-4
"""the largest difference of a score that is taken for rounding, as a share of the largest score"""


@dataclass(frozen=True)
class Agreement:
    """A student's scores, or embeddings, beside those of what was exported, on test images.

    difference: the largest of a number; largest: the largest number in size. same: on how many images both name one class; None for
    embeddings.
    """

    images: int
    same: int | None
    difference: float
    largest: float

    def __str__(self) -> str:
        if self.same is None:
            return (
                f"on {self.images} test images the largest difference of a number of an embedding is {self.difference:.1e} (the largest "
                f"number is {self.largest:.3g})"
            )
        return (
            f"on {self.images} test images the largest difference of a score is {self.difference:.1e} (the largest score is "
            f"{self.largest:.3g}), and {self.same} of {self.images} get the same class"
        )


class Answers(nn.Module):
    """A student's class scores (B, K), or a backbone's embeddings (B, D).

    pixels: whether its images are uint8 (B, C, H, W), or normalised already.
    """

    def __init__(self, student: Student, *, pixels: bool) -> None:
        super().__init__()
        self.network = student.network
        self.body = student.body
        self.pixels = pixels

    def forward(self, images: Tensor) -> Tensor:
        if self.pixels:
            return self.network.logits(images)
        if isinstance(self.network, Deployed):
            return self.network.logits_of(self.body.outputs_of(images, self.network.needs))
        logits: Tensor = self.body.outputs_of(images, Need.LOGITS).logits
        return logits


def require_packages() -> None:
    """Raise InputError that names the packages for ONNX which are not installed."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(f"format: onnx needs {', '.join(missing)}: pip install {' '.join(missing)}")


def write_graph(path: Path, student: Student, reading: Reading, metadata: Mapping[str, str], *, pixels: bool) -> int:
    """Write a student as an ONNX file with any number of images in a batch, whole or not at all; returns its opset.

    pixels: whether its input is uint8, which the graph scales and normalises (and resizes, where the network is of another side).
    Raises WorkFailed where torch cannot export the network.
    """
    import onnx

    side = reading.seen_side if pixels else reading.side
    channels = 1 if pixels and reading.grey else reading.channels
    example = torch.zeros(2, channels, side, side, dtype=torch.uint8 if pixels else torch.float32)
    content = io.BytesIO()
    with quietly():
        try:
            program = torch.onnx.export(
                Answers(student, pixels=pixels).eval(),
                (example,),
                dynamo=True,
                dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
                input_names=[INPUT],
                output_names=[EMBEDDINGS if student.embeds else SCORES],
                external_data=False,
                verbose=False,
            )
            assert program is not None
            model: Any = program.model_proto
        except Exception as error:
            raise WorkFailed(f"{student.spec.name}: torch cannot export it to ONNX ({type(error).__name__}: {error})") from error
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, content)
    write_bytes(path, content.getvalue())
    return next(int(one.version) for one in model.opset_import if one.domain in ("", "ai.onnx"))


@contextmanager
def quietly() -> Iterator[None]:
    """Without what exporters print and log of their own steps."""
    levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.utils._pytree", "root")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def open_graph(path: Path, threads: int = 1) -> Any:
    """An onnxruntime session of a file, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def graph_scores(session: Any, images: NDArray[Any]) -> NDArray[np.float32]:
    """The class scores (B, K), or embeddings (B, D), of a session for a batch of its inputs."""
    scores: NDArray[np.float32] = session.run(None, {INPUT: images})[0]
    return scores


@torch.no_grad()
def check_graph(path: Path, student: Student, test: Subset, *, count: int, pixels: bool) -> Agreement:
    """A student's scores, or embeddings, on up to `count` test images beside those of its graph.

    Raises WorkFailed where they differ clearly.
    """
    session, differences, largest, same, images = open_graph(path), [0.0], [0.0], 0, 0
    chosen = torch.arange(min(count, len(test.targets)), device=test.images.device)
    for batch in fetch(test.images, torch.split(chosen, BATCH), torch.device("cpu")):
        view = evaluation_view(batch, student.recipe.augment)
        of_network = student.network.logits(view).numpy()
        of_graph = graph_scores(session, (view if pixels else student.body.normalise(view)).numpy())
        differences.append(float(np.abs(of_network - of_graph).max()))
        largest.append(float(np.abs(of_network).max()))
        same += int((of_network.argmax(1) == of_graph.argmax(1)).sum())
        images += len(of_network)
    found = Agreement(images, None if student.embeds else same, max(differences), max(largest))
    if found.difference > TOLERANCE * max(found.largest, 1.0):
        raise WorkFailed(f"{path.name} is not the student that was trained: {found}")
    return found
