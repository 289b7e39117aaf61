"""The short way without labels: a teacher's embeddings, a folder of images, one method; at the end a backbone and how alike the two are."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial

import torch

from kdzoo.errors import InputError
from kdzoo.files import cache_folder
from kdzoo.models.network import freeze
from kdzoo.models.predict import predict
from kdzoo.models.request import pretrained_by_default
from kdzoo.models.weights import save_student
from kdzoo.runs.atomic import ensure_writable, write_bytes, write_json
from kdzoo.runs.events import Emit
from kdzoo.suite.distill.distill import keep_note, refuse_unfinished
from kdzoo.suite.distill.trained import located_run
from kdzoo.suite.distill.wish import Wish
from kdzoo.suite.export.card import licence_lines
from kdzoo.suite.export.reading import reading_of, tensor_code
from kdzoo.suite.export.student import Student, read_student
from kdzoo.suite.export.timm_format import WEIGHTS, embedding_usage, refuse_foreign
from kdzoo.suite.report.records import read_record
from kdzoo.suite.run.bench import run as run_bench
from kdzoo.suite.run.launchers import LauncherSetup, create_launcher
from kdzoo.suite.run.prepare import Prepared, configure, prepare
from kdzoo.tasks.probes import OTHERS_PER_NEIGHBOUR, QUERIES, neighbours_compared, neighbours_in_common
from kdzoo.text import number_of
from kdzoo.training.located import Modules
from kdzoo.training.run_data import load_run_data
from kdzoo.training.run_networks import load_network
from kdzoo.training.run_student import student_network


@dataclass(frozen=True)
class Likeness:
    """How alike a backbone and its teacher see images that trained neither of the two.

    before, after: the share of an image's nearest others that are the same by both, of the student as it started and as it ended;
    chance: of embeddings that have nothing to do with each other. images: how many were held out, of the first `queries` of which
    the nearest `neighbours` others are compared; width: of the student's embedding.
    """

    student: str
    teacher: str
    method: str
    images: int
    queries: int
    neighbours: int
    before: float
    after: float
    chance: float
    student_parameters: int
    teacher_parameters: int
    width: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        alike = "Of the image" if self.neighbours == 1 else f"Of the {self.neighbours} images"
        each = f"{self.images}" if self.queries == self.images else f"the first {self.queries} of {self.images}"
        return (
            f"{alike} most alike to each of {each} held-out ones, {self.student} and {self.teacher} share {self.after:.1%}; before "
            f"training it was {self.before:.1%}, and strangers would share {self.chance:.1%}. The student has "
            f"{self.student_parameters / self.teacher_parameters:.1%} of the teacher's parameters ({self.student_parameters / 1e6:.2f} M) "
            f"and embeddings of width {self.width}."
        )


def distill_unlabelled(wish: Wish, handle: Emit | None = None) -> Likeness:
    """Distil a teacher's embeddings into a backbone on images without labels; leave weights, README and likeness in `wish.results`.

    A bare name of a teacher means its pretrained weights. A fifth of the images is held out. Run the same call again to resume.
    Raises InputError before any work for what cannot be done, and WorkFailed where the run fails.
    """
    notes: list[str] = []
    listen = partial(keep_note, notes, handle or (lambda event: None))
    prepared = plan_unlabelled(wish)
    ensure_writable(wish.results)
    with create_launcher(LauncherSetup(cache_folder() / "logs" / "distill", device=wish.execution.get("device", "auto"))) as launcher:
        outcome = run_bench(prepared, launcher, listen, retry_failed=True)
    refuse_unfinished(outcome)
    likeness = measure_likeness(prepared, wish.method, tuple(dict.fromkeys(notes)))
    leave_backbone(wish, prepared, likeness)
    return likeness


def plan_unlabelled(wish: Wish) -> Prepared:
    """The run of a distillation without labels; raises InputError with everything that is wrong."""
    if wish.seconds is not None:
        raise InputError("time: without labels no epochs are counted for a time; give --epochs instead")
    if wish.format != "timm":
        raise InputError(f"format: {wish.format} names a class, and a backbone has none; leave --format out")
    if wish.int8 is not None:
        raise InputError("int8: quantises an ONNX graph, and a backbone is not written as one; leave --int8 out")
    options = wish.options(pretrained_by_default(wish.teacher), wish.image_size)
    changes = {"recipe.head": "random", **options["set"]}
    prepared = prepare(configure({**options, "task": "features", "fine_tune": False, "set": changes}))
    refuse_few(prepared.plan.data["test"])
    return prepared


def refuse_few(images: int) -> None:
    """Raise InputError where so few images are held out that networks which have nothing in common would look alike on them."""
    least = OTHERS_PER_NEIGHBOUR + 1
    if images < least:
        raise InputError(
            f"data: a fifth of the images is held out, here {number_of(images, 'image')}; expected {least} or more, or how alike two "
            "networks see them cannot be told from chance. Give a folder of 30 images or more"
        )


def measure_likeness(prepared: Prepared, method: str, notes: tuple[str, ...]) -> Likeness:
    """How alike teacher and student are on the test images, at the end and as the student started."""
    located = located_run(prepared, method)
    dataset, splits = load_run_data(located, prepared.options.image_cache)
    result = located.folder.result()
    teacher, augment, device = located.run.teacher, located.run.recipe.augment, torch.device(prepared.options.device)
    assert teacher is not None
    side = augment.size or dataset.height
    network = load_network(teacher, dataset, side=side, seed=0, path=located.paths.get("teacher"), modules=Modules())
    theirs = predict(freeze(network.to(device)), splits.test, augment, device, splits.task)
    start = predict(student_network(located, dataset, Modules()).to(device), splits.test, augment, device, splits.task)
    count = len(theirs)
    neighbours = neighbours_compared(count)
    return Likeness(
        student=located.run.student.name,
        teacher=teacher.name,
        method=method,
        images=count,
        queries=min(QUERIES, count),
        neighbours=neighbours,
        before=neighbours_in_common(start, theirs),
        after=result["last"]["test"]["neighbours"],
        chance=neighbours / (count - 1),
        student_parameters=result["student"]["parameters"],
        teacher_parameters=result["teacher"]["parameters"],
        width=start.shape[1],
        notes=(*(f"data: {note}" for note in dataset.notes), *notes),
    )


def leave_backbone(wish: Wish, prepared: Prepared, likeness: Likeness) -> None:
    """Write what a distillation without labels delivers into its folder: weights, the code that reads images, README and likeness."""
    folder = located_run(prepared, wish.method).folder
    student, _ = read_student(folder, prepared.options.image_cache)
    refuse_foreign(student)
    tensor_code(reading_of(student)).copy_modules(wish.results)
    save_student(student.body, wish.results / WEIGHTS, student.metadata)
    write_bytes(wish.results / "README.md", readme_of(student, likeness, licence_lines(read_record(folder))).encode())
    write_json(wish.results / "likeness.json", json.loads(json.dumps(asdict(likeness))))


def readme_of(student: Student, likeness: Likeness, licences: str) -> str:
    """A README in Markdown with the code that embeds an image file."""
    usage = embedding_usage(student, reading_of(student))
    heading = f"# A small backbone\n\n`{student.spec.name}` without a classifier, {student.origin}. It gives an embedding of "
    text = f"{heading}{likeness.width} numbers.\n\n```python\n{usage}\n```\n\n{likeness}\n\n## Licences\n\n{licences}\n"
    return text if not likeness.notes else text + "\n".join(["\n## Notes\n", *(f"- {note}" for note in likeness.notes)]) + "\n"
