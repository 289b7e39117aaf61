"""A student for timm: weights, classes, the code that reads images, and a README that uses them."""

from __future__ import annotations

import json
from pathlib import Path

from kdzoo.contract.objective import Deployed
from kdzoo.errors import InputError
from kdzoo.models.build import creation_options
from kdzoo.models.names import is_own
from kdzoo.models.weights import save_student
from kdzoo.runs.atomic import write_bytes, write_json
from kdzoo.suite.export.reading import Reading, reading_of, tensor_code
from kdzoo.suite.export.readme import READ_CLASSES, Usage, readme
from kdzoo.suite.export.student import Student

WEIGHTS = "student.safetensors"


def write_timm(folder: Path, student: Student, words: str) -> None:
    """Write student.safetensors, classes.json (but for a backbone), the modules that read images and README.md into a folder.

    words: what the README says of the network, in Markdown. Raises InputError for a student that timm cannot load, and StoreError
    where a file cannot be written.
    """
    refuse_foreign(student)
    reading = reading_of(student)
    code = tensor_code(reading)
    save_student(student.body, folder / WEIGHTS, student.metadata)
    write_classes(folder, student)
    code.copy_modules(folder)
    text = readme(student, reading, timm_usage(student, reading), words)
    write_bytes(folder / "README.md", text.encode())


def write_classes(folder: Path, student: Student) -> None:
    """Write classes.json: the names of the classes by number; nothing for a backbone."""
    if student.embeds:
        return
    write_json(folder / "classes.json", {str(i): name for i, name in enumerate(student.dataset.classes)})


def refuse_foreign(student: Student) -> None:
    """Raise InputError for a student that timm with kdzoo's networks cannot load."""
    if isinstance(student.network, Deployed):
        method = student.network.method
        raise InputError(f"{method.card.name} ships {method.card.deploys}, which timm does not load; `--format onnx` holds all of it")
    if student.spec.code is not None:
        raise InputError(f"network {student.spec.name!r} comes from a plugin, without which timm does not build it; use `--format onnx`")


def helpers(student: Student) -> list[str]:
    """The imports from kdzoo that building a student's network takes, beside timm's own."""
    spec = student.spec
    names = ["from kdzoo.models.names import make_known"] if is_own(spec.name) else []
    return names + (["from kdzoo.models.zoo.stem import small_stem"] if spec.stem == "small" else [])


def registration(student: Student) -> list[str]:
    """The line that registers a student's network with timm, where it is kdzoo's own."""
    return [f"make_known({json.dumps(student.spec.name)})  # to timm"] if is_own(student.spec.name) else []


def timm_usage(student: Student, reading: Reading) -> Usage:
    """Code that loads a student's weights into timm's network, and classifies or embeds an image file."""
    code, own = tensor_code(reading), helpers(student)
    small = student.spec.stem == "small"
    imports = [
        *(() if student.embeds else ("import json", "")),
        "import timm",
        "import torch",
        *(["from safetensors.torch import load_file"] if small else []),
        *own,
        "",
    ]
    loading = [*registration(student), f"model = {timm_creation(student, reading, None if small else WEIGHTS)}"]
    if small:
        loading += [f"small_stem(model, {json.dumps(student.spec.name)})", f"model.load_state_dict(load_file({json.dumps(WEIGHTS)}))"]
    answer = "model(image)[0]" if student.embeds else "classes[str(int(model(image).argmax()))]"
    return Usage(
        imports=(*imports, *code.imports),
        loading=(*loading, "model.eval()", *(() if student.embeds else READ_CLASSES)),
        verb="embed" if student.embeds else "classify",
        statements=(*code.statements, "with torch.no_grad():", f"    return {answer}"),
        needs=(*(["kdzoo"] if own else []), "timm", "torch", "safetensors", "numpy", "Pillow"),
    )


def timm_creation(student: Student, reading: Reading, weights: str | None) -> str:
    """The call that makes timm build a student's network. weights: the file beside it that it loads."""
    random = student.spec.model_copy(update={"start": "random"})
    options = creation_options(random, reading.channels, reading.side)
    if options["in_chans"] == 3 and not is_own(student.spec.name):  # the usual number of timm's networks; some of kdzoo's take grey images
        del options["in_chans"]
    options |= {} if weights is None else {"checkpoint_path": weights}
    return f"timm.create_model({', '.join([json.dumps(student.spec.name), *(f'{key}={value!r}' for key, value in options.items())])})"
