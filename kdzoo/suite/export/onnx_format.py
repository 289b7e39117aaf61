"""A student as an ONNX file that runs without torch and kdzoo: graph, classes, the code that reads images, and a README."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from kdzoo.data.split import Splits
from kdzoo.runs.atomic import write_bytes
from kdzoo.suite.export.graph import INPUT, Agreement, check_graph, require_packages, write_graph
from kdzoo.suite.export.int8 import Measured, int8_words, write_int8
from kdzoo.suite.export.reading import Reading, ReadingCode, array_code, pixel_code, reading_of, reading_options
from kdzoo.suite.export.readme import READ_CLASSES, Usage, readme
from kdzoo.suite.export.student import Student
from kdzoo.suite.export.timm_format import write_classes

GRAPH, GRAPH_INT8 = "student.onnx", "student-int8.onnx"
CHECKED = 256
"""test images on which a graph is compared with its student"""


@dataclass(frozen=True)
class OnnxExport:
    """What an export to ONNX came to: the graph's opset, its scores beside the network's, and what 8 bits come to where asked for."""

    opset: int
    agreement: Agreement
    int8: Measured | None


def write_onnx(folder: Path, student: Student, splits: Splits, words: str, *, pixels: bool, int8: bool = False) -> OnnxExport:
    """Write student.onnx, classes.json, the modules that read images and README.md into a folder, and compare graph and student.

    pixels: whether the graph takes uint8 pixels and normalises them itself. int8: whether student-int8.onnx is written too, which the
    README then uses. words: what the README says of the network, in Markdown. Raises WorkFailed where the network cannot be exported or
    quantised, or the graph gives other scores.
    """
    require_packages()
    reading = reading_of(student)
    code = pixel_code(reading) if pixels else array_code(reading)
    opset = write_graph(folder / GRAPH, student, reading, _properties(student, reading, pixels), pixels=pixels)
    found = check_graph(folder / GRAPH, student, splits.test, count=CHECKED, pixels=pixels)
    measured = write_int8(folder / GRAPH_INT8, folder / GRAPH, student, splits, pixels=pixels) if int8 else None
    write_classes(folder, student)
    code.copy_modules(folder)
    checked = f"ONNX opset {opset}; any number of images in a batch. Compared in onnxruntime with the network in PyTorch: {found}."
    in_int8 = "" if measured is None else f"## In 8 bits\n\n{int8_words(measured)}\n\n"
    usage = onnx_usage(code, GRAPH if measured is None else GRAPH_INT8)
    write_bytes(folder / "README.md", readme(student, reading, usage, f"{checked}\n\n{in_int8}{words}").encode())
    return OnnxExport(opset, found, measured)


def onnx_usage(code: ReadingCode, graph: str) -> Usage:
    """Code that runs a graph in onnxruntime, and classifies an image file."""
    return Usage(
        imports=("import json", "", "import onnxruntime", "", *code.imports),
        loading=(f'session = onnxruntime.InferenceSession("{graph}", providers=["CPUExecutionProvider"])', *READ_CLASSES),
        classifying=(
            *code.statements,
            f'(scores,) = session.run(None, {{"{INPUT}": image}})',
            "return classes[str(int(scores.argmax()))]",
        ),
        needs=("onnxruntime", "numpy", "Pillow", *(["torch"] if "import torch" in code.imports else [])),
    )


def _properties(student: Student, reading: Reading, pixels: bool) -> dict[str, str]:
    """The metadata of a graph: the student's own, the names of its classes, and, where torch resizes no image, how one is read for it:
    the arguments of `preprocess.read_image`, or of `preprocess.read_pixels`.
    """
    options = None if reading.enlarges or (reading.resizes and not pixels) else reading_options(reading, normalise=not pixels)
    return {
        **student.metadata,
        "class_names": json.dumps(list(student.dataset.classes)),
        **({"reading": json.dumps(options)} if options is not None else {}),
    }
