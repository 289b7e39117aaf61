"""A graph in 8 bits by onnxruntime's static quantisation, calibrated on training images; which layers stay in float is chosen on others."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdzoo.errors import WorkFailed
from kdzoo.suite.export.graph import INPUT, graph_scores, open_graph, quietly

LAYERS = ("Conv", "Gemm", "MatMul")
"""operators with weights"""
IN_FLOAT = (1, 4)
"""how many of the first layers are tried in float; where any are, the last layer, the classifier, is too"""
MOST_IN_FLOAT = 1 / 3
"""of the layers, and no more"""
CLEARLY = 2
"""layers stay in float where that divides the divergence by so much at least: they are larger and slower"""
Batches = Sequence[NDArray[Any]]
"""inputs of a graph, a batch each"""


@dataclass(frozen=True)
class Quantisation:
    """How a graph was quantised: how many of its first layers stay in float (with the classifier, where any do), and by which rule the
    ranges of activations were found.
    """

    first_in_float: int
    ranges: str

    def __str__(self) -> str:
        layers = "first layer" if self.first_in_float == 1 else f"first {self.first_in_float} layers"
        rest = f"the {layers} and the classifier in float32" if self.first_in_float else "every layer in 8 bits"
        return f"{rest}, ranges of activations by {self.ranges}"


@dataclass(frozen=True)
class Candidate:
    """One way to quantise a graph, as a file's content, and how far its scores are from the graph's: the mean Kullback-Leibler
    divergence of their probabilities, in nats.
    """

    how: Quantisation
    content: bytes
    divergence: float


def quantise(graph: Path, calibration: Batches, choice: Batches) -> Candidate:
    """A graph in 8 bits: QDQ format, weights int8 by channel, activations uint8.

    calibration: inputs from which the ranges of activations are taken. choice: further ones, on which the way is chosen whose scores are
    nearest to those of the graph. Raises WorkFailed where onnxruntime cannot quantise the graph.
    """
    with tempfile.TemporaryDirectory() as folder, quietly():
        try:
            return _best(graph, Path(folder), calibration, choice)
        except Exception as error:
            raise WorkFailed(f"{graph.name}: onnxruntime cannot quantise it ({type(error).__name__}: {error})") from error


def _best(graph: Path, folder: Path, calibration: Batches, choice: Batches) -> Candidate:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = folder / "prepared.onnx"
    quant_pre_process(str(graph), str(prepared), skip_symbolic_shape=True)
    expected = _all_scores(graph, choice)

    def tried(how: Quantisation) -> Candidate:
        file = folder / "quantised.onnx"
        _quantise(prepared, file, calibration, how)
        return Candidate(how, file.read_bytes(), divergence(expected, _all_scores(file, choice)))

    best = tried(Quantisation(0, "MinMax"))
    for count in IN_FLOAT:
        if 0 < len(layers_in_float(prepared, count)) <= MOST_IN_FLOAT * len(layers_of(prepared)):
            further = tried(Quantisation(count, "MinMax"))
            best = further if further.divergence * CLEARLY <= best.divergence else best
    other_ranges = tried(Quantisation(best.how.first_in_float, "Percentile"))
    return min((best, other_ranges), key=lambda one: one.divergence)


def _quantise(prepared: Path, out: Path, calibration: Batches, how: Quantisation) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    quantize_static(
        str(prepared),
        str(out),
        _reader(calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
        calibrate_method=CalibrationMethod[how.ranges],
        nodes_to_exclude=layers_in_float(prepared, how.first_in_float),
    )


def layers_in_float(graph: Path, first: int) -> list[str]:
    """The names of the first layers of a graph and of its last; none for 0."""
    layers = layers_of(graph)
    return list(dict.fromkeys([*layers[:first], *layers[-1:]])) if first else []


def layers_of(graph: Path) -> list[str]:
    """The names of a graph's layers with weights, in their order."""
    import onnx

    return [node.name for node in onnx.load(graph).graph.node if node.op_type in LAYERS]


def _reader(batches: Batches) -> Any:
    """What onnxruntime reads calibration data from."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left: Iterator[NDArray[Any]] = iter(batches)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            batch = next(self._left, None)
            return None if batch is None else {INPUT: batch}

    return Reader()


def _all_scores(graph: Path, batches: Batches) -> NDArray[np.float32]:
    session = open_graph(graph)
    return np.concatenate([graph_scores(session, batch) for batch in batches])


def divergence(expected: NDArray[np.float32], given: NDArray[np.float32]) -> float:
    """The mean Kullback-Leibler divergence, in nats, of the probabilities that scores (B, K) stand for from those that were expected."""
    own, other = _log_softmax(expected), _log_softmax(given)
    return float((np.exp(own) * (own - other)).sum(1).mean())


def _log_softmax(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = scores.astype(np.float64) - scores.max(1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result
