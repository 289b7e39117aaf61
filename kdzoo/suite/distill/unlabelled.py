"""The short way without labels: a teacher's embeddings, a folder of images, one method; at the end a backbone and how alike the two are."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from time import monotonic

from kdzoo.errors import InputError
from kdzoo.files import cache_folder
from kdzoo.models.request import pretrained_by_default
from kdzoo.runs.atomic import ensure_writable, write_json
from kdzoo.runs.events import Emit, emit_notes
from kdzoo.suite.distill.backbone import Backbone, trained_backbone
from kdzoo.suite.distill.distill import keep_note
from kdzoo.suite.distill.likeness import Likeness, measure_likeness
from kdzoo.suite.distill.plan import planned_run, refuse_unshippable
from kdzoo.suite.distill.time_limit import is_over, settle_epochs
from kdzoo.suite.distill.wish import Wish
from kdzoo.suite.export.card import licence_lines
from kdzoo.suite.export.export import check_request, write_student
from kdzoo.suite.export.folders import filled_folder
from kdzoo.suite.export.hf_format import refuse_unconfigurable
from kdzoo.suite.report.records import read_record
from kdzoo.suite.run.bench import run as run_bench
from kdzoo.suite.run.launchers import LauncherSetup, create_launcher
from kdzoo.suite.run.prepare import Prepared, configure, prepare
from kdzoo.tasks.probes import OTHERS_PER_NEIGHBOUR
from kdzoo.text import number_of
from kdzoo.training.located import Modules


def distill_unlabelled(wish: Wish, handle: Emit | None = None) -> Likeness:
    """Distil a teacher's embeddings into a backbone on images without labels; leave weights, README and likeness in `wish.results`.

    A bare name of a teacher means its pretrained weights. A fifth of the images is held out. Run the same call again to resume.
    Raises InputError before any work for what cannot be done, and WorkFailed where the run fails.
    """
    notes: list[str] = []
    tell = handle or (lambda event: None)
    listen = partial(keep_note, notes, tell)
    stop = is_over(monotonic(), wish.seconds)
    prepared, found = plan_unlabelled(wish)
    ensure_writable(wish.results)
    emit_notes(found, listen)
    with create_launcher(LauncherSetup(cache_folder() / "logs" / "distill", device=wish.execution.get("device", "auto"))) as launcher:
        outcome = run_bench(prepared, launcher, listen, retry_failed=True, stop=stop)
    backbone = trained_backbone(outcome, prepared, wish.method, stop)
    likeness = measure_likeness(prepared, backbone, wish.method, tuple(dict.fromkeys(notes)))
    emit_notes(deliver_backbone(wish, backbone, likeness), tell)
    return likeness


def plan_unlabelled(wish: Wish) -> tuple[Prepared, tuple[str, ...]]:
    """The run of a distillation without labels, and notes on its length; raises InputError with everything that is wrong."""
    began = monotonic()
    if wish.int8 is not None:
        raise InputError("int8: is judged by the classes that a student names, and a backbone has none; leave --int8 out")
    if wish.seconds is not None and wish.epochs is not None:
        raise InputError("time: the number of epochs follows from it; leave --epochs or --time out")
    check_request(wish.format)
    refuse_unshippable(wish.method)
    prepared = _prepare(wish)
    if wish.format == "hf":
        refuse_unconfigurable(planned_run(prepared, wish.method).run.student)
    refuse_few(prepared.plan.data["test"])
    if wish.seconds is None:
        return prepared, ()
    epochs = settle_epochs(wish, prepared, monotonic() - began, Modules())
    note = f"time: {number_of(epochs, 'epoch')} {'is' if epochs == 1 else 'are'} expected to fit"
    return _prepare(replace(wish, epochs=epochs)), (note,)


def _prepare(wish: Wish) -> Prepared:
    options = wish.options(pretrained_by_default(wish.teacher), wish.image_size)
    changes = {"recipe.head": "random", **options["set"]}
    return prepare(configure({**options, "task": "features", "fine_tune": False, "set": changes}))


def refuse_few(images: int) -> None:
    """Raise InputError where so few images are held out that networks which have nothing in common would look alike on them."""
    least = OTHERS_PER_NEIGHBOUR + 1
    if images < least:
        raise InputError(
            f"data: a fifth of the images is held out, here {number_of(images, 'image')}; expected {least} or more, or how alike two "
            "networks see them cannot be told from chance. Give a folder of 30 images or more"
        )


def deliver_backbone(wish: Wish, backbone: Backbone, likeness: Likeness) -> tuple[str, ...]:
    """Write what a distillation without labels delivers into its folder; a sentence each on what another format than timm's came to.

    That is weights, the code that reads images, README and likeness, and below it the format of a wish.
    """
    words = words_of(likeness, licence_lines(read_record(backbone.located.folder)))
    write = partial(write_student, backbone.student, backbone.splits, None, words, pixels=False, int8=None)
    write("timm", wish.results)
    write_json(wish.results / "likeness.json", json.loads(json.dumps(asdict(likeness))))
    if wish.format == "timm":
        return ()
    folder = wish.results / wish.format
    with filled_folder(folder) as place:
        found = write(wish.format, place)
    return tuple(f"{folder}: {note}" for note in found or ("written",))


def words_of(likeness: Likeness, licences: str) -> str:
    """What a README says of a backbone below the code that uses it, in Markdown."""
    text = f"{likeness}\n\n## Licences\n\n{licences}"
    return text if not likeness.notes else "\n".join([text, "\n## Notes\n", *(f"- {note}" for note in likeness.notes)])
