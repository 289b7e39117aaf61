"""A student as a model repository that timm loads: config.json, model.safetensors, and a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from kdzoo.errors import InputError
from kdzoo.models.build import creation_options
from kdzoo.models.weights import save_student
from kdzoo.runs.atomic import write_bytes, write_json
from kdzoo.runs.spec import NetworkSpec
from kdzoo.suite.export.reading import Reading, reading_of, tensor_code
from kdzoo.suite.export.readme import Usage, readme
from kdzoo.suite.export.student import Student
from kdzoo.suite.export.timm_format import helpers, refuse_foreign, registration, timm_creation

WEIGHTS, CONFIG = "model.safetensors", "config.json"
FROM_TIMM = ("classifier", "fixed_input_size", "pool_size")
"""what timm's own configuration of a network says that is true of its weights here"""


def write_hf(folder: Path, student: Student, words: str) -> None:
    """Write config.json, model.safetensors, the modules that read images and README.md, a model card, into a folder.

    words: what the card says of the network below its code, in Markdown. Raises InputError for a student that timm cannot build from a
    configuration.
    """
    refuse_foreign(student)
    refuse_unconfigurable(student.spec)
    reading = reading_of(student)
    code = tensor_code(reading)
    save_student(student.body, folder / WEIGHTS, student.metadata)
    write_json(folder / CONFIG, configuration(student, reading))
    code.copy_modules(folder)
    text = readme(student, reading, hf_usage(student, reading), words)
    write_bytes(folder / "README.md", f"---\n{yaml.safe_dump(front_matter(student), sort_keys=False)}---\n\n{text}".encode())


def refuse_unconfigurable(spec: NetworkSpec) -> None:
    """Raise InputError for a network that timm cannot build from a configuration."""
    if spec.stem == "small":
        raise InputError(f"{spec.name}: timm has no configuration for a stem for small images; use `--format timm` or onnx")


def configuration(student: Student, reading: Reading) -> dict[str, Any]:
    """What config.json says: from it timm builds the network, with its own nearest words for how images are read."""
    model, spec = student.body.model, student.spec
    options = creation_options(spec.model_copy(update={"start": "random"}), reading.channels, reading.side)
    own: Any = getattr(model, "pretrained_cfg", {})
    return {
        "architecture": spec.name,
        "num_classes": spec.classes,
        "num_features": int(getattr(model, "num_features", 0)),
        **({} if student.embeds else {"label_names": list(student.dataset.classes)}),
        "model_args": {key: value for key, value in options.items() if key != "num_classes"},
        "pretrained_cfg": {
            **{key: own[key] for key in FROM_TIMM if own.get(key) is not None},
            "num_classes": spec.classes,
            "input_size": [reading.channels, reading.side, reading.side],
            "mean": _by_channel(reading.mean, reading.channels),
            "std": _by_channel(reading.std, reading.channels),
            "crop_pct": reading.seen_side / max(reading.decode_side, reading.seen_side),
            "crop_mode": "center",
            "interpolation": "bilinear",
        },
    }


def _by_channel(values: tuple[float, ...], channels: int) -> list[float]:
    """A value for each channel, also where one stands for all."""
    return list(values) * channels if len(values) == 1 else list(values)


def hf_usage(student: Student, reading: Reading) -> Usage:
    """Code that builds the network from the folder, and classifies or embeds an image file."""
    code, own = tensor_code(reading), helpers(student)
    read_classes = (f'with open("{CONFIG}", encoding="utf-8") as file:', '    classes = json.load(file)["label_names"]')
    answer = "model(image)[0]" if student.embeds else "classes[int(model(image).argmax())]"
    return Usage(
        imports=(*(() if student.embeds else ("import json", "")), "import timm", "import torch", *own, "", *code.imports),
        loading=(
            *registration(student),
            f"model = {timm_creation(student, reading, WEIGHTS)}" if own else 'model = timm.create_model("local-dir:.", pretrained=True)',
            "model.eval()",
            *(() if student.embeds else read_classes),
        ),
        verb="embed" if student.embeds else "classify",
        statements=(*code.statements, "with torch.no_grad():", f"    return {answer}"),
        needs=(*(["kdzoo"] if own else []), "timm", "torch", "safetensors", "numpy", "Pillow"),
    )


def front_matter(student: Student) -> dict[str, Any]:
    """What the card says of itself to programs."""
    pipeline = "image-feature-extraction" if student.embeds else "image-classification"
    return {"library_name": "timm", "pipeline_tag": pipeline, "tags": [pipeline, "timm", "knowledge-distillation", "kdzoo"]}
