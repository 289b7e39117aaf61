"""No row of the teacher cache is read that nobody wrote, or that is not what was written; and a cache may go at any time."""

import errno
import hashlib
import inspect
import json
import multiprocessing
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_teacher_cache import AUTO, FINITE, MIXED, OFF, cohort, planned, trained

import kdzoo
from kdzoo.contract.needs import Need, Needs, NetworkNeeds, Pass
from kdzoo.contract.outputs import Outputs
from kdzoo.data import epoch, loader, mixing, operations, pixels, views
from kdzoo.files import cache_folder
from kdzoo.models.placement import autocast
from kdzoo.models.predict import predict
from kdzoo.runs.events import CacheUse, Event, Note, StepsTaken, TrainingBegun
from kdzoo.runs.options import WorkerOptions
from kdzoo.seeds import stream
from kdzoo.suite.plan.planned import Plan
from kdzoo.suite.run.train_runs import train_runs
from kdzoo.suite.run.worker_state import WorkerState
from kdzoo.teachers import answers, code
from kdzoo.teachers.answers import CachedAnswers
from kdzoo.teachers.cache import TeacherCache
from kdzoo.teachers.columns import Column, Seal
from kdzoo.teachers.open_cache import open_cache
from kdzoo.teachers.predictions import predictions as predictions_of
from kdzoo.training.cohort import Cohort

EAGER = WorkerOptions(teacher_cache=None, checkpoint_seconds=1e-9)
"""the cache is put on disk after every step"""
SMALL = {"epochs": 2, "limit": 150}
WIDE = {"recipe.augment.crop": "pad", "recipe.augment.pad": 4, "recipe.augment.flip": False, "recipe.batch_size": 32}


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Ready:
    """A cache with a trained teacher, and its cache as two methods filled it; the weights that a live teacher gives."""

    bare: Path
    filled: Path
    live: dict[str, dict[str, bytes]]


@pytest.fixture(scope="module")
def ready(tmp_path_factory) -> Ready:
    place = tmp_path_factory.mktemp("ready")
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDZOO_CACHE", str(place / "bare"))
        live = trained(planned(place / "live", FINITE, methods="hinton,at", seeds="1", **SMALL), OFF)
        shutil.copytree(place / "bare", place / "filled")
        patch.setenv("KDZOO_CACHE", str(place / "filled"))
        assert trained(planned(place / "cold", FINITE, methods="hinton,at", seeds="1", **SMALL), AUTO) == live
    return Ready(place / "bare", place / "filled", live)


def train(made: Plan, options: WorkerOptions, handle: Callable[[Event], None] = lambda _: None) -> list[str]:
    """Train the runs of a bench as one cohort; what the notes said."""
    notes: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)
        handle(event)

    train_runs(made.store, [p.run.id for p in made.students], options, WorkerState(), emit, lambda: False)
    return notes


def weights(made: Plan) -> dict[str, dict[str, bytes]]:
    files = {p.run.id: load_file(made.store.run(p.run.id).student) for p in made.students}
    return {run_id: {name: value.numpy().tobytes() for name, value in state.items()} for run_id, state in files.items()}


def misses(made: Plan) -> int:
    """The answers that were asked for in a cohort's training and not remembered."""
    found = [made.store.run(p.run.id).result()["teacher_cache"] for p in made.students if p.run.teacher is not None]
    return int(found[0]["lookups"] - found[0]["hits"])


def memo_folder() -> Path:
    (seals,) = cache_folder().glob("teacher-cache/*/logits.seal")
    return seals.parent


def written(folder: Path, column: str) -> np.ndarray:
    """The rows of a column that were written, in the order of their numbers."""
    return np.flatnonzero(np.fromfile(folder / f"{column}.seal", dtype=np.int64))


# What a column knows


def test_a_method_that_reads_more_than_another_remembered_computes_it(ready, tmp_path):
    """hinton makes rows of logits and embedding known; of the stages, whose files at begins, nobody has written these rows.

    Of few images with many views few rows are known, and mostly none of the first batch, so that no comparison finds it out.
    """
    shutil.copytree(ready.bare, cache_folder())
    few = {"epochs": 1, "limit": 150}
    trained(planned(tmp_path / "first", WIDE, methods="hinton", seeds=[0], **few), AUTO)
    assert len(written(memo_folder(), "logits")) == 120
    again = planned(tmp_path / "again", WIDE, methods="at", seeds=[3, 4], **few)
    assert trained(again, AUTO) == trained(planned(tmp_path / "live", WIDE, methods="at", seeds=[3, 4], **few), OFF)


def test_a_row_is_known_where_every_column_knows_it(tmp_path):
    logits, maps = (Column(need, number, (3,), torch.float32) for need, number in ((Need.LOGITS, None), (Need.STAGES, 0)))
    place = {"samples": 4, "views": 1, "block": 2, "device": torch.device("cpu")}
    one = TeacherCache(tmp_path, [logits], **place)
    one.write(torch.tensor([0, 2]), Outputs.of({Need.LOGITS: torch.ones(2, 3)}, owner="teacher"))
    one.flush()
    both = TeacherCache(tmp_path, [logits, maps], **place)
    both.check_rows(torch.arange(4))
    assert not both.known.any()
    both.write(torch.tensor([2, 3]), Outputs.of({Need.LOGITS: torch.ones(2, 3), Need.STAGES: [torch.full((2, 3), 5.0)]}, owner="teacher"))
    both.flush()
    again, fewer = TeacherCache(tmp_path, [logits, maps], **place), TeacherCache(tmp_path, [logits], **place)
    for cache in (again, fewer):
        cache.check_rows(torch.arange(4))
    assert again.known.tolist() == [False, False, True, True]
    assert fewer.known.tolist() == [True, False, True, True]
    assert again.damaged == fewer.damaged == 0
    assert torch.equal(again.read(torch.tensor([2, 3]))[Need.STAGES][0], torch.full((2, 3), 5.0))


def test_damage_is_told_when_it_is_met_and_once_more_at_the_end_with_what_was_met_since(tmp_path):
    column = Column(Need.LOGITS, None, (3,), torch.float32)
    place = {"samples": 6, "views": 1, "block": 2, "device": torch.device("cpu")}
    one = TeacherCache(tmp_path, [column], **place)
    one.write(torch.arange(6), Outputs.of({Need.LOGITS: torch.ones(6, 3)}, owner="teacher"))
    one.flush()
    values = np.memmap(tmp_path / "logits.f32", dtype=np.float32, mode="r+", shape=(6, 3))
    values[[0, 3, 4]] = 2.0
    values.flush()
    again = TeacherCache(tmp_path, [column], **place)
    again.check_rows(torch.arange(3))
    assert again.new_notes() == ["the teacher cache: damaged, and computed again: 1 row"]
    again.check_rows(torch.arange(3, 6))
    assert again.new_notes() == []
    assert again.last_notes() == ["the teacher cache: damaged, and computed again, since then: 2 rows"]
    assert again.last_notes() == []


# What a seal tells


def test_a_seal_is_the_sum_that_its_text_gives():
    column = Column(Need.LOGITS, None, (2, 2), torch.float32)
    values = torch.tensor([[[1.0, -2.0], [0.5, 1e30]]])
    drawn = hashlib.shake_128(f"owner logits {(2, 2)} torch.float32".encode()).digest(48)
    salt, place, *odd = (int.from_bytes(drawn[8 * i : 8 * i + 8], "little") | 1 for i in range(6))
    words = [int(word) for word in values.numpy().view(np.int32).flatten()]
    expected = (salt + place * 7 + sum(w * x for w, x in zip(odd, words, strict=True))) % 2**64
    assert int(Seal.of(column, "owner").take(torch.tensor([7]), values)[0]) % 2**64 == expected


def test_any_flipped_bit_of_a_row_or_its_seal_makes_the_row_unknown(tmp_path):
    kept = TeacherCache(tmp_path, [Column(Need.LOGITS, None, (3,), torch.float32)], samples=1, views=1, block=1, device=torch.device("cpu"))
    kept.write(torch.tensor([0]), Outputs.of({Need.LOGITS: torch.tensor([[0.0, -1.5, 3e-3]])}, owner="teacher"))
    kept.flush()
    for name in ("logits.f32", "logits.seal"):
        content = (tmp_path / name).read_bytes()
        for bit in range(8 * len(content)):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            (tmp_path / name).write_bytes(flipped)
            again = TeacherCache(tmp_path, kept.columns, samples=1, views=1, block=1, device=torch.device("cpu"))
            again.check_rows(torch.tensor([0]))
            assert not again.known.any(), (name, bit)
        (tmp_path / name).write_bytes(content)


@pytest.mark.parametrize(
    ("owner", "column", "row"),
    [
        ("other", Column(Need.LOGITS, None, (2, 3), torch.float32), 0),
        ("teacher_cache", Column(Need.STAGES, 0, (2, 3), torch.float32), 0),
        ("teacher_cache", Column(Need.LOGITS, None, (3, 2), torch.float32), 0),
        ("teacher_cache", Column(Need.LOGITS, None, (2, 3), torch.bfloat16), 0),
        ("teacher_cache", Column(Need.LOGITS, None, (2, 3), torch.float32), 1),
    ],
    ids=["teacher_cache", "column", "shape", "dtype", "row"],
)
def test_a_row_of_another_cache_column_shape_dtype_or_place_does_not_fit(owner, column, row):
    values = torch.randn(1, 6)
    seal = Seal.of(Column(Need.LOGITS, None, (2, 3), torch.float32), "teacher_cache").take(torch.tensor([0]), values)
    assert Seal.of(column, owner).take(torch.tensor([row]), values) != seal


# Damage, by state: what is on disk before a bench is trained


def flip(column: str, kind: str) -> Callable[[Path], int]:
    def act(folder: Path) -> int:
        file, row = folder / f"{column}.{kind}", int(written(folder, column)[5])
        content = bytearray(file.read_bytes())
        size = len(content) // (len((folder / f"{column}.seal").read_bytes()) // 8)
        content[row * size + 3] ^= 1 << 2
        file.write_bytes(content)
        return 1

    return act


def zeros(column: str) -> Callable[[Path], int]:
    def act(folder: Path) -> int:
        file = folder / f"{column}.f32"
        file.write_bytes(bytes(file.stat().st_size))
        return len(written(folder, column))

    return act


def cut(name: str) -> Callable[[Path], int]:
    def act(folder: Path) -> int:
        os.truncate(folder / name, (folder / name).stat().st_size // 2)
        return len(written(folder, "logits")) if name.endswith("f32") else 0

    return act


def grow(folder: Path) -> int:
    with (folder / "logits.f32").open("ab") as file:
        file.write(b"more")
    return len(written(folder, "logits"))


def empty(folder: Path) -> int:
    (folder / "stages-0.f32").write_bytes(b"")
    return len(written(folder, "logits"))


def shift(folder: Path) -> int:
    """Every row in its neighbour's place."""
    rows = np.fromfile(folder / "embedding.f32", dtype=np.float32).reshape(len(np.fromfile(folder / "embedding.seal", dtype=np.int64)), -1)
    before = rows.copy()
    np.roll(rows, 1, axis=0).tofile(folder / "embedding.f32")
    places = written(folder, "embedding")
    return int((np.roll(before, 1, axis=0)[places] != before[places]).any(axis=1).sum())


def remove_values(folder: Path) -> int:
    (folder / "stages-1.f32").unlink()
    return len(written(folder, "logits"))


def remove_seals(folder: Path) -> int:
    (folder / "stages-1.seal").unlink()
    return 0


def put_a_folder(folder: Path) -> int:
    (folder / "logits.f32").unlink()
    (folder / "logits.f32").mkdir()
    return len(written(folder, "logits"))


def put_a_pipe(folder: Path) -> int:
    (folder / "logits.seal").unlink()
    os.mkfifo(folder / "logits.seal")
    return 0


def mistake_another(folder: Path) -> int:
    about = json.loads((folder / "about.json").read_text())
    (folder / "about.json").write_text(json.dumps({**about, "teacher": "another"}))
    return 0


def garble_about(folder: Path) -> int:
    (folder / "about.json").write_bytes(b"\xff{")
    return 0


TOLD = r"damaged, and computed again: (\d+) row"


@pytest.mark.parametrize(
    ("damage", "note"),
    [
        (flip("logits", "f32"), TOLD),
        (flip("embedding", "f32"), TOLD),
        (flip("stages-0", "f32"), TOLD),
        (flip("stages-1", "seal"), TOLD),
        (zeros("logits"), TOLD),
        (zeros("stages-1"), TOLD),
        (cut("logits.f32"), r"logits\.f32 was damaged \(\d+,?\d* bytes for "),
        (cut("stages-0.seal"), r"stages-0\.seal was damaged \(\d+,?\d* bytes for "),
        (grow, r"logits\.f32 was damaged"),
        (empty, r"stages-0\.f32 was damaged \(0 bytes"),
        (shift, TOLD),
        (remove_values, TOLD),
        (remove_seals, None),
        (put_a_folder, r"logits\.f32 was damaged \(not a file\)"),
        (put_a_pipe, r"logits\.seal was damaged \(not a file\)"),
        (mistake_another, r"about\.json was damaged"),
        (garble_about, r"about\.json was damaged"),
    ],
)
def test_a_damaged_cache_changes_no_weight_and_is_told_and_mended(ready, tmp_path, damage, note):
    shutil.copytree(ready.filled, cache_folder())
    rows = damage(memo_folder())
    made = planned(tmp_path / "made", FINITE, methods="hinton,at", seeds="1", **SMALL)
    notes = train(made, AUTO)
    assert weights(made) == ready.live
    if note is not None:
        assert [text for text in notes if re.search(note, text)], notes
    if rows:  # the cohort is the one that filled the cache, so it asks for every row that was written
        counted = [int(number.replace(",", "")) for text in notes for number in re.findall(r"([\d,]+) rows?$", text)]
        assert sum(counted) == rows
    again = planned(tmp_path / "again", FINITE, methods="hinton,at", seeds="1", **SMALL)
    assert train(again, AUTO) == []
    assert weights(again) == ready.live
    assert misses(again) == 0


def test_rows_that_are_damaged_are_asked_for_again_and_no_others(ready, tmp_path):
    shutil.copytree(ready.filled, cache_folder())
    warm = planned(tmp_path / "warm", FINITE, methods="hinton,at", seeds="1", **SMALL)
    assert train(warm, AUTO) == []
    assert misses(warm) == 0
    flip("logits", "f32")(memo_folder())
    made = planned(tmp_path / "made", FINITE, methods="hinton,at", seeds="1", **SMALL)
    train(made, AUTO)
    assert misses(made) in (1, 2)  # a view that comes in both epochs is looked up once in each


def test_a_run_goes_on_from_its_checkpoint_beside_a_cache_that_was_damaged_meanwhile(ready, tmp_path):
    shutil.copytree(ready.bare, cache_folder())
    made = planned(tmp_path / "made", FINITE, methods="hinton,at", seeds="1", **SMALL)
    asked = iter(range(10_000))
    ids = [p.run.id for p in made.students]
    with pytest.raises(kdzoo.KdzooError):
        train_runs(made.store, ids, EAGER, WorkerState(), lambda _: None, lambda: next(asked) == 2)
    file = memo_folder() / "stages-0.f32"
    file.write_bytes(bytes(file.stat().st_size))
    train(made, AUTO)
    assert weights(made) == ready.live


# Another teacher cache, whose seals fit


@pytest.mark.parametrize("column", ["logits", "embedding", "stages-0"])
def test_a_cache_that_is_not_this_teachers_is_found_out_and_made_anew(ready, tmp_path, column):
    shutil.copytree(ready.filled, cache_folder())
    made = planned(tmp_path / "made", FINITE, methods="hinton,at", seeds="1", **SMALL)
    cache = cohort(made, AUTO).open_teacher_cache()
    assert isinstance(cache, TeacherCache)
    rows = torch.from_numpy(written(cache.folder, "logits"))
    cache.check_rows(rows)
    values = cache.read(rows)
    other = {need: [-v for v in value] if isinstance(value, list) and column == "stages-0" else value for need, value in values.items()}
    other |= {need: -values[need] for need in (Need.LOGITS, Need.EMBEDDING) if need.name == column.upper()}
    cache.write(rows, Outputs.of(other, owner="another"))
    cache.flush()
    notes = train(made, AUTO)
    assert weights(made) == ready.live
    assert notes == ["the teacher cache differs from this teacher's outputs; it is computed again"]
    assert not cache.folder.exists()  # the next cohort starts a new one


def test_what_is_known_is_compared_wherever_in_an_epoch_it_begins(tmp_path):
    column = Column(Need.LOGITS, None, (3,), torch.float32)
    cache = TeacherCache(tmp_path, [column], samples=10, views=1, block=2, device=torch.device("cpu"))
    live = Outputs.of({Need.LOGITS: torch.ones(2, 3)}, owner="teacher")
    page = CachedAnswers(cache, {Pass.FIRST: torch.arange(10)}, NetworkNeeds(Need.LOGITS), lambda _: live, None, ahead=torch.arange(10))
    assert page.first_known() is None
    cache.write(torch.tensor([5]), Outputs.of({Need.LOGITS: torch.full((1, 3), 1.25)}, owner="another"))
    positions = page.first_known()
    assert positions is not None
    assert positions.tolist() == [4, 5]
    assert page.relative_error(positions, torch.zeros(2, 1, 1, 1)) == 0.25


# What does not fit


LOGITS_ALONE = WorkerOptions(teacher_cache=2 * 1024**2)
"""room for the digits' logits and embeddings, and not for their stages"""


def test_methods_that_read_what_does_not_fit_train_apart_and_fill_the_cache_for_the_others(ready, tmp_path):
    shutil.copytree(ready.bare, cache_folder())
    made = planned(tmp_path / "made", FINITE, methods="hinton,at", seeds="1", **SMALL)
    begun: list[tuple[str, ...]] = []
    used: list[tuple[int, int]] = []

    def note(event: Event) -> None:
        if isinstance(event, TrainingBegun):
            begun.append(tuple(run_id.partition("-")[0] for run_id in event.ids))
        elif isinstance(event, CacheUse):
            used.append((event.lookups, event.hits))

    (told,) = train(made, LOGITS_ALONE, note)
    assert "it keeps logits and embedding, and the teacher is run in every step for methods that read its stages" in told
    assert begun == [("at",), ("hinton", "none")]
    assert used == [(240, 0), (240, 240)]  # two epochs of 120 images, all of which the first cohort has asked about
    assert weights(made) == ready.live
    assert not list(memo_folder().glob("stages-*"))


@pytest.mark.parametrize("room", [0, 3])
def test_a_disk_that_is_full_ends_no_run_and_changes_no_weight(ready, tmp_path, monkeypatch, room):
    """None of the rows gets its place, or those of the first calls: what has none is asked for in every step."""
    shutil.copytree(ready.bare, cache_folder())
    calls = iter(range(10_000))

    def reserve(descriptor: int, offset: int, length: int) -> None:
        if next(calls) >= room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", reserve)
    made = planned(tmp_path / "made", FINITE, methods="hinton,at", seeds="1", **SMALL)
    assert train(made, AUTO) == ["the teacher cache: no room for new rows (No space left on device); the teacher is run for those it lacks"]
    assert weights(made) == ready.live
    assert not len(written(memo_folder(), "logits"))


# A cache that goes while it is in use


def evict(folder: Path) -> None:
    """What opening another cache does where there is room for one of them."""
    column = Column(Need.LOGITS, None, (5,), torch.float32)
    opened = open_cache({}, "another", [column], Need.LOGITS, samples=10, views=1, block=2, device=torch.device("cpu"), limit=1000)
    assert isinstance(opened, TeacherCache)
    assert not folder.exists()


def replace_folder(folder: Path) -> None:
    """Removed, and begun again by another process, whose rows are all unknown."""
    about = (folder / "about.json").read_bytes()
    sizes = {file.name: file.stat().st_size for kind in ("f32", "seal") for file in folder.glob(f"*.{kind}")}
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "about.json").write_bytes(about)
    for name, size in sizes.items():
        (folder / name).write_bytes(bytes(size))


@pytest.mark.parametrize(
    ("act", "options"),
    [(evict, EAGER), (shutil.rmtree, AUTO), (replace_folder, EAGER), (replace_folder, AUTO)],
    ids=["evicted", "removed, saved at the end", "begun again", "begun again, saved at the end"],
)
def test_a_cohort_goes_on_when_its_cache_is_removed(ready, tmp_path, act, options):
    shutil.copytree(ready.bare, cache_folder())
    made = planned(tmp_path / "made", FINITE, methods="hinton,at", seeds="1", **SMALL)
    gone: list[Path] = []

    def handle(event: Event) -> None:
        if isinstance(event, StepsTaken) and not gone:
            gone.append(memo_folder())
            act(gone[0])

    notes = train(made, options, handle)
    assert gone
    assert weights(made) == ready.live
    assert [text for text in notes if "removed from disk" in text] == notes
    assert len(notes) == 1
    assert not gone[0].exists() or (act is replace_folder and len(written(gone[0], "logits")) == 0)
    again = planned(tmp_path / "again", FINITE, methods="hinton,at", seeds="1", **SMALL)
    assert train(again, AUTO) == []
    assert weights(again) == ready.live


def test_a_cache_is_removed_from_under_its_name_first(tmp_path, monkeypatch):
    """So that a process that dies while it removes one leaves no half of it; the remains go with the next that makes room."""
    column = Column(Need.LOGITS, None, (5,), torch.float32)
    old = open_cache({}, "old", [column], Need.LOGITS, samples=10, views=1, block=2, device=torch.device("cpu"), limit=None)
    assert isinstance(old, TeacherCache)
    monkeypatch.setattr("kdzoo.teachers.disk.shutil.rmtree", lambda *_, **__: None)
    old.delete()
    assert not old.folder.exists()
    monkeypatch.undo()
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    open_cache({}, "new", [column], Need.LOGITS, samples=10, views=1, block=2, device=torch.device("cpu"), limit=None)
    assert [path.name.partition("-")[0] for path in (cache_folder() / "teacher-cache").iterdir()] == ["new"]


def _train_there(cache: str, folder: str, methods: str) -> None:
    os.environ["KDZOO_CACHE"] = cache
    torch.set_num_threads(1)
    train(planned(Path(folder), FINITE, methods=methods, seeds="1", **SMALL), EAGER)


def test_two_processes_that_share_a_cache_end_with_a_live_teachers_weights(ready, tmp_path):
    shutil.copytree(ready.bare, cache_folder())
    context = multiprocessing.get_context("fork")
    pairs = [(str(tmp_path / methods), methods) for methods in ("hinton", "at")]
    workers = [context.Process(target=_train_there, args=(str(cache_folder()), *pair)) for pair in pairs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    for folder, methods in pairs:
        for run_id, tensors in weights(planned(Path(folder), FINITE, methods=methods, seeds="1", **SMALL)).items():
            assert tensors == ready.live[run_id]


# What a cache stands for


def test_the_code_that_numbers_and_draws_views_is_part_of_what_a_cache_stands_for(ready, tmp_path, monkeypatch):
    shutil.copytree(ready.bare, cache_folder())
    made = planned(tmp_path / "made", FINITE, methods="hinton", seeds="1", **SMALL)
    before = cohort(made, AUTO).open_teacher_cache()
    assert isinstance(before, TeacherCache)
    assert json.loads((before.folder / "about.json").read_text())["code"] == code.CODE_DIGEST
    source = Path(views.__file__).read_text()
    changed = source.replace("views.top * reach + views.left", "views.left * reach + views.top")
    assert changed != source
    (tmp_path / "views.py").write_text(changed)
    files = [tmp_path / "views.py" if file == Path(views.__file__) else file for file in code.code_files()]
    monkeypatch.setattr("kdzoo.teachers.open_cache.CODE_DIGEST", code.code_digest(files))
    after = cohort(made, AUTO).open_teacher_cache()
    assert isinstance(after, TeacherCache)
    assert after.folder != before.folder


@pytest.mark.parametrize(
    "definition",
    [
        views.draw_views,
        views.apply_views,
        views.view_number,
        views.evaluation_view,
        pixels.square,
        mixing.draw_mixes,
        mixing.mix,
        operations.apply_operation,
        epoch.order,
        epoch.partners,
        epoch.EpochPlan,
        loader.fetch_once,
        stream,
        Cohort.plan_epoch,
        autocast,
        predict,
        answers.forward_block,
        answers.cached_answers,
        CachedAnswers,
        Column,
        TeacherCache.rows,
    ],
)
def test_every_step_from_a_row_to_its_image_stands_in_a_file_of_that_code(definition):
    assert Path(inspect.getsourcefile(inspect.unwrap(definition))) in code.code_files()


def test_a_float32_cache_is_refused_to_what_it_would_round():
    column = Column(Need.LOGITS, None, (5,), torch.float64)
    refused = open_cache({}, "m", [column], Need.LOGITS, samples=10, views=1, block=2, device=torch.device("cpu"), limit=None)
    assert isinstance(refused, str)
    assert "would round its logits (torch.float64)" in refused


def test_two_mixes_with_one_partner_have_a_row_each(tmp_path):
    """Of a mixed batch a partner's image depends on the sample whose partner it is, not on itself alone."""
    needs = Needs(Need.LOGITS | Pass.PARTNER, Need.LOGITS | Pass.PARTNER)

    @kdzoo.register("partner_of_both", needs=needs)
    def partner_of_both(student, teacher, batch):
        return (student.partner.logits - teacher.partner.logits).pow(2).mean() + (student.logits - teacher.logits).pow(2).mean()

    live, kept = (planned(tmp_path / name, MIXED, methods="partner_of_both", seeds="1", **SMALL) for name in ("live", "kept"))
    assert trained(kept, AUTO) == trained(live, OFF)


# Predictions


@pytest.mark.parametrize("place", [0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_a_flipped_bit_of_a_teachers_predictions_is_told_and_they_are_computed_again(ready, tmp_path, place):
    shutil.copytree(ready.filled, cache_folder())
    made = planned(tmp_path / "made", FINITE, methods="hinton,at", seeds="1", **SMALL)
    expected = cohort(made, OFF).teacher
    assert expected is not None
    (file,) = cache_folder().glob("teacher-cache/*/predictions.safetensors")
    content = bytearray(file.read_bytes())
    content[round(place * (len(content) - 1))] ^= 1
    file.write_bytes(content)
    damaged = cohort(made, AUTO).teacher
    assert damaged is not None
    assert torch.equal(damaged.test, expected.test)
    assert len(damaged.notes) == 1
    assert "the teacher's predictions are computed again" in damaged.notes[0]
    assert file.with_name("predictions.safetensors.damaged").read_bytes() == bytes(content)
    mended = cohort(made, AUTO).teacher
    assert mended is not None
    assert torch.equal(mended.test, expected.test)
    assert mended.notes == ()


def test_a_bench_tells_that_a_teachers_predictions_were_damaged(ready, tmp_path):
    shutil.copytree(ready.filled, cache_folder())
    (file,) = cache_folder().glob("teacher-cache/*/predictions.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    made = planned(tmp_path / "made", FINITE, methods="hinton,at", seeds="1", **SMALL)
    notes = train(made, AUTO)
    assert len(notes) == 1
    assert "the teacher's predictions are computed again" in notes[0]


@pytest.mark.parametrize("place", ["another's", "a folder", "a pipe"])
def test_predictions_of_another_teacher_or_no_file_at_all_are_not_read(tmp_path, place):
    mine = {"test": torch.zeros(3, 2)}
    predictions_of({"teacher": "mine"}, "m", lambda: mine)
    (file,) = cache_folder().glob("teacher-cache/*/predictions.safetensors")
    file.unlink()
    if place == "another's":
        predictions_of({"teacher": "other"}, "o", lambda: {"test": torch.ones(3, 2)})
        (other,) = cache_folder().glob("teacher-cache/o-*/predictions.safetensors")
        shutil.copy(other, file)
    elif place == "a folder":
        file.mkdir()
    else:
        os.mkfifo(file)
    again = predictions_of({"teacher": "mine"}, "m", lambda: mine)
    assert torch.equal(again.by_part["test"], mine["test"])
    assert len(again.notes) == 1
    kept = predictions_of({"teacher": "mine"}, "m", dict)
    assert torch.equal(kept.by_part["test"], mine["test"])
    assert kept.notes == ()
