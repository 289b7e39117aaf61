"""A student as an ONNX file that runs without torch and kdzoo: graph, classes, the code that reads images, and a README."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kdzoo.data.split import Splits
from kdzoo.runs.atomic import write_bytes
from kdzoo.suite.export.graph import EMBEDDINGS, INPUT, SCORES, Agreement, check_graph, require_packages, write_graph
from kdzoo.suite.export.int8 import Measured, Tuned, Way, int8_words, write_int8
from kdzoo.suite.export.qat import Teaching, fine_tune
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


def write_onnx(
    folder: Path, student: Student, splits: Splits, words: str, *, pixels: bool, int8: Way | None = None, teacher: Teaching | None = None
) -> OnnxExport:
    """Write student.onnx, classes.json (but for a backbone), the modules that read images and README.md, and compare graph and student.

    pixels: whether the graph takes uint8 pixels and normalises them itself. int8: how student-int8.onnx is made, which the README then
    uses; None where it is not written. teacher: of quantisation-aware training; None for the student in float32 itself. words: what
    the README says of the network, in Markdown. Raises WorkFailed where the network cannot be exported or quantised, or the graph
    gives other scores.
    """
    require_packages()
    reading = reading_of(student)
    code = pixel_code(reading) if pixels else array_code(reading)
    opset = write_graph(folder / GRAPH, student, reading, _properties(student, reading, pixels), pixels=pixels)
    found = check_graph(folder / GRAPH, student, splits.test, count=CHECKED, pixels=pixels)
    result = None if int8 is None else _write_int8(folder, student, splits, int8, teacher, pixels=pixels)
    write_classes(folder, student)
    code.copy_modules(folder)
    checked = f"ONNX opset {opset}; any number of images in a batch. Compared in onnxruntime with the network in PyTorch: {found}."
    in_int8 = "" if result is None else f"## In 8 bits\n\n{int8_words(result)}\n\n"
    usage = onnx_usage(code, GRAPH if result is None else GRAPH_INT8, embeds=student.embeds)
    write_bytes(folder / "README.md", readme(student, reading, usage, f"{checked}\n\n{in_int8}{words}").encode())
    return OnnxExport(opset, found, result)


def _write_int8(folder: Path, student: Student, splits: Splits, way: Way, teacher: Teaching | None, *, pixels: bool) -> Measured:
    if way == "static":
        return write_int8(folder / GRAPH_INT8, folder / GRAPH, student, splits, pixels=pixels)
    taught_by = teacher or Teaching(student.network, "the student in float32")
    tuned = fine_tune(student, splits, taught_by.network)
    reading = reading_of(student)
    with tempfile.TemporaryDirectory() as place:
        graph = Path(place) / GRAPH
        write_graph(graph, tuned, reading, _properties(student, reading, pixels), pixels=pixels)
        found = Tuned(graph, taught_by.name)
        return write_int8(folder / GRAPH_INT8, folder / GRAPH, student, splits, pixels=pixels, tuned=found)


def onnx_usage(code: ReadingCode, graph: str, *, embeds: bool) -> Usage:
    """Code that runs a graph in onnxruntime, and classifies an image file, or embeds it where the graph is a backbone's."""
    answer = "embeddings[0]" if embeds else "classes[str(int(scores.argmax()))]"
    return Usage(
        imports=(*(() if embeds else ("import json", "")), "import onnxruntime", "", *code.imports),
        loading=(
            f'session = onnxruntime.InferenceSession("{graph}", providers=["CPUExecutionProvider"])',
            *(() if embeds else READ_CLASSES),
        ),
        verb="embed" if embeds else "classify",
        statements=(
            *code.statements,
            f'({EMBEDDINGS if embeds else SCORES},) = session.run(None, {{"{INPUT}": image}})',
            f"return {answer}",
        ),
        needs=("onnxruntime", "numpy", "Pillow", *(["torch"] if "import torch" in code.imports else [])),
    )


def _properties(student: Student, reading: Reading, pixels: bool) -> dict[str, str]:
    """The metadata of a graph: the student's own, the names of its classes where it has some, and how an image is read for it.

    The last is left out where torch resizes the image; it is the arguments of `preprocess.read_image`, or of `preprocess.read_pixels`.
    """
    options = None if reading.enlarges or (reading.resizes and not pixels) else reading_options(reading, normalise=not pixels)
    return {
        **student.metadata,
        **({} if student.embeds else {"class_names": json.dumps(list(student.dataset.classes))}),
        **({"reading": json.dumps(options)} if options is not None else {}),
    }
