"""The short way: a large network, a folder of images, one good method and recipe; at the end a small network and a verdict."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdzoo.assemble import Bound, Modules, data_of, network_of, shape_of
from kdzoo.data.images import Images
from kdzoo.data.labels import map_labels
from kdzoo.data.sources import Raw, register_source
from kdzoo.errors import InputError, WorkFailed
from kdzoo.latency import milliseconds
from kdzoo.method import REGISTRY
from kdzoo.models.network import Network
from kdzoo.models.weights import pretrained_unless_said
from kdzoo.store import StoreError, cache_folder, write_bytes, write_json
from kdzoo.suite.bench import Prepared, asked, prepare
from kdzoo.suite.bench import run as run_bench
from kdzoo.suite.jobs import Event, Handle, Outcome
from kdzoo.suite.launch import Pool
from kdzoo.suite.request import parse_request
from kdzoo.suite.stats import wilson

METHOD = "hinton"
"""Tuned plain KD is what other methods have to beat, and it serves any two networks."""
RECIPE = "finetune224"
BATCHES = (1, 32)


@dataclass(frozen=True)
class Measured:
    """One of the three networks of a verdict. accuracy: top-1 on the test images, with its 95 % interval (Wilson)."""

    name: str
    accuracy: float
    low: float
    high: float
    balanced: float
    parameters: int
    macs: int
    milliseconds: Mapping[int, float]
    """of a forward, by batch size"""


@dataclass(frozen=True)
class Verdict:
    """What the short way came to. test_images: how many the accuracies are of. threads: those of the latencies."""

    distilled: Measured
    alone: Measured
    teacher: Measured
    classes: tuple[str, ...]
    test_images: int
    method: str
    threads: int
    device: str
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([*table(self), "", *self.notes, conclusion(self)])


@dataclass(frozen=True)
class Distilled:
    """What `kdzoo.distill` returns: the trained student in evaluation mode, and how it compares."""

    student: nn.Module
    accuracy: float
    baseline: float
    teacher_accuracy: float
    verdict: Verdict


def distill_folder(
    folder: Path,
    *,
    teacher: str,
    student: str = "mobilenetv3_small_100",
    out: Path = Path("small"),
    method: str = METHOD,
    recipe: str = RECIPE,
    epochs: int | None = None,
    image_size: int | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    handle: Handle | None = None,
) -> Verdict:
    """Distil `teacher` into `student` on the images below `folder`; leave weights, classes, verdict and use in `out`.

    A bare name of a teacher means its pretrained weights; one made for other classes is fine-tuned on these first. The
    student is trained twice with the same seed and batches, with the teacher and alone, so that the verdict is fair.
    The same call again goes on where the last one stopped. Raises InputError before any work for what cannot be done, and
    WorkFailed where a run fails.
    """
    changes: dict[str, Any] = {} if image_size is None else {"recipe.augment.size": image_size}
    options = {
        "name": "runs",
        "results": str(out),
        "data": f"folder:{folder}",
        "teacher": pretrained_unless_said(teacher),
        "student": student,
        "methods": [method],
        "recipe": recipe,
        "seeds": [seed],
        "refit": False,
        "fine_tune": True,
        "device": device,
        "jobs": 1,
        "keep": ["student"],
        **{key: value for key, value in {"epochs": epochs, "threads": threads}.items() if value is not None},
        "set": changes,
    }
    _refuse_shipped(method)
    prepared = prepare(asked(options))
    tell = handle or (lambda event: None)
    for text in fine_tuned(prepared, teacher):
        tell({"event": "note", "text": text})
    with Pool(1, (), cache_folder() / "logs" / "distill") as pool:
        outcome = run_bench(prepared, pool, tell, retry_failed=True)
    _refuse_failed(outcome)
    verdict = judge(prepared, method, fine_tuned(prepared, teacher), Modules())
    deliver(prepared, verdict, out, method)
    return verdict


def distill(
    student: str | nn.Module,
    teacher: str | nn.Module,
    data: str | Path | tuple[tuple[Any, Any], tuple[Any, Any]],
    *,
    method: str = METHOD,
    recipe: str = "smoke",
    epochs: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    results: str | Path = "results",
    device: str = "auto",
    threads: int | None = None,
) -> Distilled:
    """Train a student under a teacher and return it, with the same student trained alone to compare with.

    student, teacher: names (see `kdzoo bench --help`) or modules; a teacher's module is taken as it is, and must score
    the classes of the data. data: a folder of images, a data set's name, or ((images, labels), (images, labels)) of train
    and test with images (N, H, W[, C]) or (N, C, H, W) uint8 and labels that are numbers or names. Trains in this
    process, through the same trainer as a bench; the same call again trains nothing. threads: of the CPU, None for as many
    as torch has (`torch.get_num_threads`, which OMP_NUM_THREADS sets); torch has as many afterwards as before. What is to
    be said of the networks is in the verdict's notes. Raises InputError before any work, and WorkFailed where a run fails.
    """
    from kdzoo.api import module_name

    found = {module_name(m): m for m in (student, teacher) if isinstance(m, nn.Module)}
    modules = Modules(found)
    options = {
        "name": "distill",
        "results": str(results),
        "data": _data_name(data),
        "teacher": module_name(teacher) if isinstance(teacher, nn.Module) else teacher,
        "student": module_name(student) if isinstance(student, nn.Module) else student,
        "methods": [method],
        "recipe": recipe,
        "seeds": [seed],
        "refit": False,
        "fine_tune": True,
        "device": device,
        "threads": torch.get_num_threads() if threads is None else threads,
        **{key: value for key, value in {"epochs": epochs, "lr": lr}.items() if value is not None},
    }
    _refuse_shipped(method)
    prepared = prepare(asked(options, modules=modules), modules)
    notes: list[str] = []
    before = torch.get_num_threads()
    try:
        outcome = run_bench(prepared, None, partial(_note, notes), retry_failed=True, modules=modules)
        _refuse_failed(outcome)
        verdict = judge(prepared, method, tuple(dict.fromkeys(notes)), modules)
        trained, _ = _network(_bound(prepared, method), modules, prepared)
    finally:
        torch.set_num_threads(before)
    return Distilled(trained.model.eval(), verdict.distilled.accuracy, verdict.alone.accuracy, verdict.teacher.accuracy, verdict)


def _note(notes: list[str], event: Event) -> None:
    """Take down what is said in words."""
    if event["event"] == "note":
        notes.append(str(event["text"]))


def _data_name(data: str | Path | tuple[tuple[Any, Any], tuple[Any, Any]]) -> str:
    """The name of a data set; arrays are registered under a name of their content.

    Raises InputError for arrays that are no images, and labels that name no classes (`labels.map_labels`).
    """
    if isinstance(data, tuple):
        train, test = ((_pixels(images), labels) for images, labels in data)
        labels = map_labels(train[1], test[1])
        digest = hashlib.blake2b(digest_size=6)
        for images, numbers in ((train[0], labels.train), (test[0], labels.test)):
            digest.update(images.tobytes() + numbers.tobytes())
        if labels.classes != tuple(map(str, range(len(labels.classes)))):
            digest.update(repr(labels.classes).encode())
        name = f"arrays-{digest.hexdigest()}"
        register_source(name, lambda: Raw(train, test), "arrays given from Python")
        return name
    if isinstance(data, Path) or Path(data).is_dir():
        return f"folder:{data}"
    return data


def _pixels(images: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Images as (N, H, W[, C]) uint8."""
    array = images.cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    if array.dtype != np.uint8:
        raise InputError(f"data: expected uint8 images in 0..255, got {array.dtype}")
    channels_first = array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] not in (1, 3)
    return array.transpose(0, 2, 3, 1) if channels_first else array


def fine_tuned(prepared: Prepared, teacher: str) -> tuple[str, ...]:
    """What is said of a teacher that has to be trained before it teaches."""
    return tuple(
        f"the teacher {teacher} "
        + ("starts at random and is trained" if planned.run.student.start == "random" else "was made for other classes and is fine-tuned")
        + f" on these images first ({planned.run.recipe.epochs} epochs; kept as {planned.run.id})"
        for planned in prepared.plan.teachers.values()
    )


def judge(prepared: Prepared, method: str, notes: tuple[str, ...], modules: Modules) -> Verdict:
    """The three networks beside each other, from the results of their runs and from latencies measured now."""
    distilled, alone = _bound(prepared, method), _bound(prepared, "none")
    device = torch.device(prepared.options.device)
    torch.set_num_threads(prepared.options.threads)
    images, _ = data_of(distilled, prepared.options.resident)
    shape = shape_of(images, distilled.run.recipe)
    result = distilled.folder.result()
    student_network, _ = _network(distilled, modules, prepared)
    assert distilled.run.teacher is not None
    teacher_network = network_of(distilled.run.teacher, images, side=shape[1], seed=0, path=distilled.paths.get("teacher"), modules=modules)
    student_times = {batch: milliseconds(student_network, shape, batch, device) for batch in BATCHES}
    teacher_times = {batch: milliseconds(teacher_network, shape, batch, device) for batch in BATCHES}
    student = result["student"]
    return Verdict(
        distilled=_measured(student, result["last"]["test"], student_times),
        alone=_measured(student, alone.folder.result()["last"]["test"], student_times),
        teacher=_measured(result["teacher"], result["teacher"]["test"], teacher_times),
        classes=images.classes,
        test_images=result["last"]["test"]["n"],
        method=method,
        threads=prepared.options.threads,
        device=prepared.options.device,
        notes=(*(f"data: {note}" for note in images.notes), *notes),
    )


def _refuse_failed(outcome: Outcome) -> None:
    """Raises WorkFailed with every run that failed."""
    if outcome.failed:
        raise WorkFailed("\n".join(f"{run_id} failed: {reason}" for run_id, reason in outcome.failed.items()))


def _refuse_shipped(method: str) -> None:
    """The short way ends with a student that plain timm loads; raises InputError for a method whose student is none."""
    ships = {name: REGISTRY.get(name).card.ships for name in parse_request(method).terms}
    found = [
        f"method: {name} ships {words}, which plain timm does not load; `kdzoo bench` trains it" for name, words in ships.items() if words
    ]
    if found:
        raise InputError(*found)


def _bound(prepared: Prepared, label: str) -> Bound:
    """The run of a method in its bench."""
    (found,) = [p for p in prepared.plan.students if p.run.objective.label == label]
    return Bound.read(prepared.plan.store.run(found.run.id))


def _network(bound: Bound, modules: Modules, prepared: Prepared) -> tuple[Network, Images]:
    """The trained student of a run."""
    images, _ = data_of(bound, prepared.options.resident)
    spec = bound.run.student.model_copy(update={"start": f"run:{bound.run.id}"})
    side = shape_of(images, bound.run.recipe)[1]
    return network_of(spec, images, side=side, seed=0, path=str(bound.folder.student), modules=modules), images


def _measured(network: Mapping[str, Any], test: Mapping[str, Any], times: Mapping[int, float]) -> Measured:
    low, high = wilson(round(test["top1"] * test["n"]), test["n"])
    return Measured(network["name"], test["top1"], low, high, test["balanced"], network["parameters"], network["macs"], times)


def table(verdict: Verdict) -> list[str]:
    """The verdict as lines of a table."""
    head = ["", "network", f"accuracy on {verdict.test_images} test images", "parameters", "MACs", *(f"ms, batch {b}" for b in BATCHES)]
    rows = [head]
    for name, one in (("distilled", verdict.distilled), ("student alone", verdict.alone), ("teacher", verdict.teacher)):
        accuracy = f"{100 * one.accuracy:.1f} % [{100 * one.low:.1f}, {100 * one.high:.1f}]"
        times = [f"{one.milliseconds[b]:.1f}" for b in BATCHES]
        rows.append([name, one.name, accuracy, f"{one.parameters / 1e6:.2f} M", f"{one.macs / 1e6:.0f} M", *times])
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def conclusion(verdict: Verdict) -> str:
    """The verdict in a sentence."""
    gain = 100 * (verdict.distilled.accuracy - verdict.alone.accuracy)
    smaller = verdict.teacher.parameters / verdict.distilled.parameters
    faster = verdict.teacher.milliseconds[1] / verdict.distilled.milliseconds[1]
    overlap = verdict.distilled.low <= verdict.alone.high and verdict.alone.low <= verdict.distilled.high
    found = f"{abs(gain):.1f} points {'better' if gain > 0 else 'worse'} than" if f"{abs(gain):.1f}" != "0.0" else "as good as"
    doubt = "; one seed and these few test images do not tell the two apart" if overlap else ""
    return (
        f"The distilled student has {1 / smaller:.1%} of the teacher's parameters, takes {1 / faster:.0%} of its time for one image "
        f"on this machine ({verdict.threads} thread(s), {verdict.device}), and is {found} the same student trained alone{doubt}."
    )


def deliver(prepared: Prepared, verdict: Verdict, out: Path, method: str) -> None:
    """Leave student.safetensors, classes.json, verdict.json and README.md in the folder."""
    bound = _bound(prepared, method)
    network, images = _network(bound, Modules(), prepared)
    try:
        shutil.copyfile(bound.folder.student, out / "student.safetensors")
    except OSError as error:
        raise StoreError(f"cannot write {out / 'student.safetensors'}: {error.strerror}") from error
    write_json(out / "classes.json", {str(i): name for i, name in enumerate(verdict.classes)})
    write_json(out / "verdict.json", json.loads(json.dumps(asdict(verdict))))
    write_bytes(out / "README.md", usage(bound, network, images, verdict).encode())


def usage(bound: Bound, network: Network, images: Images, verdict: Verdict) -> str:
    """How the student is loaded and fed with plain timm, and the verdict."""
    mean, std = ([round(float(v), 6) for v in part.flatten()] for part in (network.mean, network.std))
    side = network.image_size or shape_of(images, bound.run.recipe)[1]
    inputs = f", in_chans={network.channels}" if network.channels != 3 else ""
    load = f"timm.create_model({bound.run.student.name!r}, num_classes={len(verdict.classes)}{inputs})"
    return f"""# A small network

```python
import json, timm, torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torchvision.transforms.v2 import functional as F

model = {load}
model.load_state_dict(load_file("student.safetensors"))
image = ImageOps.fit(Image.open("image.jpg").convert("RGB"), ({side}, {side}))
x = F.normalize(F.to_dtype(F.pil_to_tensor(image), torch.float32, scale=True), {mean}, {std})
print(json.load(open("classes.json"))[str(int(model.eval()(x[None]).argmax()))])
```

{chr(10).join("    " + line for line in table(verdict))}

{conclusion(verdict)}
"""
