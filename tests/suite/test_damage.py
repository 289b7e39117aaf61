"""Whatever happens to the files of a half-finished bench, it is told, and the bench ends as one that nobody disturbed."""

import io
import json
import random
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from edited import edit
from safetensors.torch import load_file

import kdzoo
from kdzoo.errors import InputError
from kdzoo.runs.atomic import StoreError
from kdzoo.runs.events import Event, Note, RunFailed
from kdzoo.runs.metrics_file import read_lines, read_whole
from kdzoo.runs.predictions import Predictions, read_predictions
from kdzoo.runs.seals import DamagedFile, read_tensors, tensors_digest, write_sealed, write_tensors
from kdzoo.runs.store import RunFolder, Store
from kdzoo.suite.plan.cohorts import make_jobs
from kdzoo.suite.plan.jobs import Outcome
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.run.bench import run
from kdzoo.suite.run.launchers.here import Here
from kdzoo.suite.run.planned_files import write_plan
from kdzoo.suite.run.prepare import prepare
from kdzoo.suite.run.repair import fault_of
from kdzoo.suite.run.work import work
from kdzoo.suite.run.worker_state import WorkerState
from kdzoo.training.checkpoint import read_checkpoint
from kdzoo.training.located import Modules
from kdzoo.training.train import Stopped

METHODS = ("hinton", "fitnet_two_stage")
TIMES = ("seconds", "started", "finished", "cost", "environment", "teacher_cache")  # what differs from one execution to the next


@dataclass(frozen=True)
class Place:
    """Results and cache of a bench, and the runs in them."""

    folder: Path

    @property
    def store(self) -> Store:
        return Store(self.folder / "results" / "b")

    @property
    def teachers(self) -> Store:
        return Store(self.folder / "cache" / "teachers")

    @property
    def teacher(self) -> RunFolder:
        (run_id,) = self.teachers.ids()
        return self.teachers.run(run_id)

    def find(self, label: str, kind: str = "train") -> RunFolder:
        """The run of a method."""
        found = [self.store.run(run_id) for run_id in self.store.ids()]
        (only,) = [folder for folder in found if (r := folder.read_plan()[0]).objective.label == label and r.kind == kind]
        return only

    def copy(self, to: Path) -> "Place":
        shutil.copytree(self.folder, to, dirs_exist_ok=True)
        return Place(to)


@dataclass(frozen=True)
class Ended:
    """How a bench ended, and what it told on the way."""

    outcome: Outcome
    notes: str


def bench(place: Place, *, stop_after: int | None = None, retry_failed: bool = False, **more: object) -> Ended:
    """The bench in this process; with `stop_after` its students are stopped when they have been asked so often."""
    options = {
        "results": str(place.folder / "results"),
        "name": "b",
        "data": "digits",
        "pairs": ["digits"],
        "recipe": "digits",
        "methods": list(METHODS),
        "seeds": [0],
        "epochs": 3,
        "limit": 300,
        "jobs": 1,
        "threads": 1,
        "device": "cpu",
        "checkpoint_seconds": 30.0,
        "teacher_cache": "off",
        "set": {"teacher_recipe.epochs": 5},
        **more,
    }
    notes: list[str] = []

    def handle(event: Event) -> None:
        if isinstance(event, Note | RunFailed):
            notes.append(event.text if isinstance(event, Note) else event.error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDZOO_CACHE", str(place.folder / "cache"))
        prepared = prepare(bench_config(options, None))
        if stop_after is None:
            return Ended(run(prepared, Here(), handle, retry_failed=retry_failed), "\n".join(notes))
        write_plan(prepared.plan)
        asked = iter(range(stop_after))
        worker = WorkerState(Modules())
        for job in make_jobs(prepared.plan.students, prepared.plan, prepared.options, 1):
            students = job.kind == "students"
            try:
                work(job, worker, handle, (lambda: next(asked, None) is None) if students else lambda: False)
            except Stopped:
                break
        return Ended(Outcome(), "\n".join(notes))


def content(place: Place) -> dict[str, object]:
    """All that a bench has come to but for times: weights and predictions bit for bit, metrics, results."""
    found: dict[str, object] = {}
    for store in (place.store, place.teachers):
        for folder in map(store.run, store.ids()):
            found[f"{folder.id} state"] = folder.state()
            if folder.student.exists():
                found[f"{folder.id} weights"] = {name: value.numpy().tobytes() for name, value in load_file(folder.student).items()}
            if folder.predictions.exists():
                with np.load(folder.predictions) as arrays:
                    found[f"{folder.id} predictions"] = {name: arrays[name].tobytes() for name in arrays}
            if folder.metrics.exists():
                lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
                found[f"{folder.id} metrics"] = [
                    {key: value for key, value in line.items() if key not in ("seconds", "digest")} for line in lines
                ]
            if folder.state() == "done":
                found[f"{folder.id} result"] = {key: value for key, value in folder.result().items() if key not in TIMES}
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A bench that nobody disturbed."""
    place = Place(tmp_path_factory.mktemp("whole"))
    assert not bench(place).outcome.failed
    return place


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The same, stopped in the second epoch of its students, with a checkpoint each."""
    place = Place(tmp_path_factory.mktemp("half"))
    bench(place, stop_after=8)
    states = {folder.read_plan()[0].kind: folder.state() for folder in map(place.store.run, place.store.ids())}
    assert states == {"train": "started", "pretrain": "done"}
    assert 4 < read_checkpoint(place.find("hinton"), torch.device("cpu"))["step"] < 12
    return place


def test_kept_predictions_come_to_the_numbers_of_the_result(whole: Place) -> None:
    """Every metric from the file alone, in NumPy: no class ties that did not tie, no sample stands elsewhere."""
    teacher = read_predictions(whole.teacher.predictions, whole.teacher.id, part="test", classes=10)
    for label in THREE_RUNS:
        folder = whole.find(label)
        recorded = folder.result()["last"]
        for part in ("val", "test"):
            kept = read_predictions(folder.predictions, folder.id, part=part, classes=10)
            found = metrics_of(kept)
            assert {name: pytest.approx(recorded[part][name], abs=1e-6) for name in found} == found
            assert len(kept.keys) == recorded[part]["n"]
        if label != "none":
            np.testing.assert_array_equal(kept.keys, teacher.keys)
            agreement = (kept.log_probs.argmax(1) == teacher.log_probs.argmax(1)).mean()
            assert agreement == pytest.approx(recorded["test"]["agreement"], abs=1e-6)


def metrics_of(kept: Predictions) -> dict[str, float]:
    """Top-1, top-5, NLL, and the expected calibration error over 15 bins of equal width (Guo et al. 2017)."""
    log_probs, targets = kept.log_probs.astype(np.float64), kept.targets
    order = np.argsort(-log_probs, axis=1)
    right, confidence = order[:, 0] == targets, np.exp(kept.log_probs).max(1).astype(np.float64)
    bins = np.clip(np.ceil(confidence * 15).astype(int) - 1, 0, 14)
    gaps = [abs(right[bins == b].sum() - confidence[bins == b].sum()) for b in range(15)]
    return {
        "top1": float(right.mean()),
        "top5": float((order[:, :5] == targets[:, None]).any(1).mean()),
        "nll": float(-log_probs[np.arange(len(targets)), targets].mean()),
        "ece": float(sum(gaps) / len(targets)),
    }


def test_keys_are_the_samples_whatever_is_held_out(whole: Place) -> None:
    """Validation and test samples have keys of their own, which do not repeat on the digits."""
    parts = [read_predictions(whole.find("none").predictions, whole.find("none").id, part=part, classes=10) for part in ("val", "test")]
    keys = [row.tobytes() for part in parts for row in part.keys]
    assert len(keys) == len(set(keys)) == 60 + 359


def damage(file: Path, how: str, other: Path) -> None:
    """Do to a file what disks, people and programs do."""
    size = file.stat().st_size
    match how:
        case "empty":
            file.write_bytes(b"")
        case "half":
            file.write_bytes(file.read_bytes()[: size // 2])
        case "zeros":
            file.write_bytes(bytes(size))
        case "ones":
            file.write_bytes(b"\1" * size)
        case "garbage":
            file.write_bytes(random.Random(0).randbytes(size))
        case "a folder":
            file.unlink()
            file.mkdir()
        case "gone":
            file.unlink()
        case "another run's":
            shutil.copyfile(other, file)
        case "other seal":
            file.write_bytes(b"{" + file.read_bytes())
        case "nested":
            file.write_bytes(b"[" * 100_000)
        case "no record":
            file.write_bytes(b"1\n")
        case "a flipped bit":
            flip_a_bit(file, 3)


def flip_a_bit(file: Path, seed: int) -> None:
    content = bytearray(file.read_bytes())
    chosen = random.Random(seed)
    content[chosen.randrange(len(content))] ^= 1 << chosen.randrange(8)
    file.write_bytes(bytes(content))


def test_a_bench_that_was_stopped_ends_as_one_that_was_not(half: Place, whole: Place, tmp_path: Path) -> None:
    place = half.copy(tmp_path)
    ended = bench(place)
    assert not ended.outcome.failed
    assert "damaged" not in ended.notes
    assert content(place) == content(whole)


@pytest.mark.parametrize("kind", ["student", "pretrain stage", "teacher"])
def test_a_result_that_no_table_could_count_is_told_and_set_aside_and_its_run_is_trained_again(
    half: Place, whole: Place, tmp_path: Path, kind: str
) -> None:
    place = (whole if kind == "student" else half).copy(tmp_path)
    if kind == "pretrain stage":
        shutil.rmtree(place.find("fitnet_two_stage").checkpoint.parent)
    folder = {
        "student": lambda: place.find("hinton"),
        "pretrain stage": lambda: place.find("fitnet_two_stage", "pretrain"),
        "teacher": lambda: place.teacher,
    }[kind]()
    edit(folder.path / "result.json", lambda result: result["last"]["test"].update(ece=None))
    result = (folder.path / "result.json").read_bytes()
    ended = bench(place)
    assert not ended.outcome.failed
    assert f"{folder.path / 'result.json'}: damaged (last.test.ece: " in ended.notes
    assert f"{folder.id} is trained again" in ended.notes
    assert (folder.path / "result.json.damaged").read_bytes() == result
    assert content(place) == content(whole)


THREE_RUNS = ("hinton", "none", "fitnet_two_stage")


@pytest.mark.parametrize(
    "hows", [("empty", "half", "zeros"), ("ones", "garbage", "a folder"), ("another run's", "a flipped bit", "other seal")]
)
def test_a_damaged_checkpoint_is_told_and_set_aside_and_its_run_begins_again(
    half: Place, whole: Place, tmp_path: Path, hows: tuple[str, ...]
) -> None:
    place = half.copy(tmp_path)
    folders = [place.find(label) for label in THREE_RUNS]
    anothers = place.find("fitnet_two_stage", "pretrain").checkpoint
    for folder, how in zip(folders, hows, strict=True):
        damage(folder.checkpoint, how, anothers)
    ended = bench(place)
    assert not ended.outcome.failed
    for folder in folders:
        assert f"{folder.checkpoint}: " in ended.notes
        assert f"{folder.id} starts again" in ended.notes
        assert folder.checkpoint.with_name("state.pt.damaged").exists()
    assert content(place) == content(whole)


def test_a_whole_checkpoint_that_cannot_be_gone_on_from_is_set_aside_too(half: Place, whole: Place, tmp_path: Path) -> None:
    """As when a library has changed what a network is made of, when a key is not there, when weights are no numbers."""
    place = half.copy(tmp_path)
    for label, change in zip(THREE_RUNS, (of_another_shape, without_step, of_no_number), strict=True):
        folder = place.find(label)
        state = read_checkpoint(folder, torch.device("cpu"))
        change(state)
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_sealed(folder.checkpoint, buffer.getvalue(), folder.id)
    ended = bench(place)
    assert ended.notes.count("cannot be resumed") == 3
    assert "1 weights are NaN or infinite" in ended.notes
    assert content(place) == content(whole)


@pytest.mark.parametrize("looks", [(False, True), (True, False, True), (True, True)])
def test_the_best_epoch_on_the_test_images_is_of_all_epochs_or_none(tmp_path: Path, looks: tuple[bool, ...]) -> None:
    """A bench of four epochs that is stopped after each part, with --oracle or without; a part without it sees no test image."""
    place = Place(tmp_path)
    options = {"methods": ["hinton"], "epochs": 4}
    for number, look in enumerate(looks[:-1]):
        bench(place, stop_after=6 if number == 0 else 4, oracle=look, **options)
    ended = bench(place, oracle=looks[-1], **options)
    assert not ended.outcome.failed
    for label in ("hinton", "none"):
        folder = place.find(label)
        assert (folder.result()["oracle"] is None) == (not all(looks))
        assert (f"{folder.id}: no best epoch on the test images (oracle): only " in ended.notes) == (not all(looks))


def of_another_shape(state: dict) -> None:
    state["network"] = {name: value.repeat(2) if value.ndim == 1 else value for name, value in state["network"].items()}


def without_step(state: dict) -> None:
    del state["step"]


def of_no_number(state: dict) -> None:
    weights = next(value for value in state["network"].values() if value.ndim == 4)
    weights.view(-1)[0] = float("nan")


@pytest.mark.parametrize("how", ["half", "gone"])
def test_a_damaged_first_stage_is_trained_again_before_the_second_goes_on_from_it(
    half: Place, whole: Place, tmp_path: Path, how: str
) -> None:
    place = half.copy(tmp_path)
    first, second = place.find("fitnet_two_stage", "pretrain"), place.find("fitnet_two_stage")
    damage(first.checkpoint, how, second.checkpoint)
    damage(second.checkpoint, "half", second.checkpoint)
    ended = bench(place)
    assert not ended.outcome.failed
    assert str(first.checkpoint) in ended.notes
    assert f"{first.id} is trained again" in ended.notes
    assert content(place) == content(whole)


@pytest.mark.parametrize("how", ["a flipped bit", "another run's", "a folder", "gone"])
def test_damaged_weights_of_a_kept_teacher_teach_nobody(half: Place, whole: Place, tmp_path: Path, how: str) -> None:
    place = half.copy(tmp_path)
    teacher = place.teacher
    damage(teacher.student, how, write_student_of_another(place, tmp_path))
    ended = bench(place)
    assert not ended.outcome.failed
    assert str(teacher.student) in ended.notes
    assert f"{teacher.id} is trained again" in ended.notes
    assert (teacher.path / "result.json.damaged").exists()
    assert content(place) == content(whole)


def other_last_bits(place: Place) -> None:
    """What another machine or another number of threads makes of a kept teacher: the same id, weights of other last bits."""
    tensors, metadata = read_tensors(place.teacher.student, place.teacher.id)
    write_tensors(
        place.teacher.student,
        {name: value.nextafter(value + 1) if value.is_floating_point() else value for name, value in tensors.items()},
        metadata,
    )


def test_a_run_that_was_stopped_goes_on_only_with_the_weights_of_the_teacher_it_began_with(half: Place, tmp_path: Path) -> None:
    stopped, fresh = half.copy(tmp_path / "stopped"), half.copy(tmp_path / "fresh")
    shutil.rmtree(fresh.folder / "results")
    for place in (stopped, fresh):
        other_last_bits(place)
    ended = bench(stopped, methods=["hinton"])
    bench(fresh, methods=["hinton"])
    hinton, none = (stopped.find(label) for label in ("hinton", "none"))
    assert f"{hinton.checkpoint}: its teacher has been trained again and has other weights now; {hinton.id} starts again" in ended.notes
    assert hinton.checkpoint.with_name("state.pt.damaged").exists()
    assert not none.checkpoint.with_name("state.pt.damaged").exists()
    came, expected = content(stopped), content(fresh)
    assert {key: came[key] for key in expected} == expected


def test_a_table_tells_that_its_seeds_learnt_from_two_trainings_of_one_teacher(whole: Place, tmp_path: Path) -> None:
    place = whole.copy(tmp_path)
    assert not [note for note in read_bench(place.store.folder).notes if "different trainings" in note]
    first = place.find("hinton").result()["teacher"]["weights_digest"]
    assert first == tensors_digest(load_file(place.teacher.student))
    other_last_bits(place)
    bench(place, seeds=[0, 1], methods=["hinton"])
    (note,) = [note for note in read_bench(place.store.folder).notes if "different trainings" in note]
    assert "taught by 2 different trainings of teacher digits_teacher (fitnet_two_stage seed 0 and hinton seed 0; hinton seed 1)" in note
    assert note in (place.store.folder / "leaderboard.md").read_text()


def test_a_teacher_kept_without_a_digest_is_trained_again(half: Place, whole: Place, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    place = half.copy(tmp_path)
    save_file(load_file(place.teacher.student), place.teacher.student, {"architecture": "resnet14x4"})
    ended = bench(place)
    assert "has no digest" in ended.notes
    assert content(place) == content(whole)


def test_a_damaged_teacher_that_is_named_by_its_id_is_refused_before_training(whole: Place, tmp_path: Path) -> None:
    place = whole.copy(tmp_path)
    flip_a_bit(place.teacher.student, 11)
    given = {"pairs": (), "teacher": place.teacher.id, "student": "resnet8x4", "name": "c"}
    with pytest.raises(InputError, match=rf"weights: {place.teacher.student}: .*`kdzoo run .*{place.teacher.id}` trains"):
        bench(place, **given)
    assert not (place.folder / "results" / "c").exists()


@pytest.mark.slow
def test_who_names_a_damaged_run_is_told_and_trains_it_again(whole: Place, tmp_path: Path, kdzoo) -> None:
    """`evaluate` measures nothing that was not written, `compare` reads no such predictions, `run` trains the run again."""
    place = whole.copy(tmp_path)
    folder, other = place.find("hinton"), place.find("none")
    for file in (folder.student, folder.predictions):
        flip_a_bit(file, 5)
    measured, compared = kdzoo("evaluate", folder.path), kdzoo("compare", folder.id, other.id)
    assert (measured.status, compared.status) == (2, 2)
    assert f"weights: {folder.student.resolve()}" in measured.err.replace("\n", "")
    assert "predictions.npz: " in compared.err.replace("\n", "")
    assert kdzoo("leaderboard", "b").status == kdzoo("status", "b").status == 0
    again = kdzoo("run", folder.path)
    assert again.status == 0, again.err
    assert "is trained again" in again.out + again.err
    assert kdzoo("evaluate", folder.path).status == 0
    assert content(place) == content(whole)


@pytest.mark.parametrize("victim", ["checkpoint", "student"])
def test_no_flipped_bit_of_what_a_run_reads_back_goes_unseen(half: Place, tmp_path: Path, victim: str) -> None:
    place = half.copy(tmp_path)
    folder = place.find("hinton") if victim == "checkpoint" else place.teacher
    file = getattr(folder, victim)
    sound = file.read_bytes()
    ends = [(place, bit) for place in (*range(600), *range(len(sound) - 20, len(sound))) for bit in (place % 8,)]  # headers
    anywhere = [divmod(random.Random(seed).randrange(8 * len(sound)), 8) for seed in range(100)]
    for byte, bit in ends + anywhere:
        content = bytearray(sound)
        content[byte] ^= 1 << bit
        file.write_bytes(content)
        with pytest.raises(DamagedFile):
            read_checkpoint(folder, torch.device("cpu")) if victim == "checkpoint" else read_tensors(file, folder.id)


@pytest.mark.parametrize("how", ["empty", "half", "zeros", "ones", "garbage"])
def test_a_bench_finds_that_the_weights_of_a_kept_teacher_are_no_whole_file(whole: Place, tmp_path: Path, how: str) -> None:
    """By what it looks at before it takes a teacher that is done; what it does then is the test of a flipped bit."""
    teacher = RunFolder(Path(shutil.copytree(whole.teacher.path, tmp_path / whole.teacher.id)))
    assert fault_of(teacher) is None
    damage(teacher.student, how, teacher.student)
    fault = fault_of(teacher)
    assert fault is not None
    assert (fault.file, fault.text.startswith(f"{teacher.student}: ")) == (teacher.student, True)


def flipped(sound: bytes, count: int) -> Iterator[bytes]:
    """A text with one bit flipped: in each of its last 100 bytes, where its digest stands, and in so many places drawn from all."""
    ends = [(at, at % 8) for at in range(len(sound) - 100, len(sound))]
    anywhere = [divmod(random.Random(seed).randrange(8 * len(sound)), 8) for seed in range(count)]
    for byte, bit in ends + anywhere:
        content = bytearray(sound)
        content[byte] ^= 1 << bit
        yield bytes(content)


def test_no_flipped_bit_of_a_record_is_read_as_what_was_written(whole: Place) -> None:
    """Of a result, of what was planned, and of the epochs of a run, of which those before the flipped bit stay."""
    folder = whole.find("fitnet_two_stage")
    for name, read in (("result.json", folder.result), ("run.json", folder.plan_file)):
        file = folder.path / name
        sound = file.read_bytes()
        try:
            for content in flipped(sound, 150):
                file.write_bytes(content)
                with pytest.raises(InputError, match=rf"^{file}: damaged \("):
                    read()
        finally:
            file.write_bytes(sound)
    sound, lines = folder.metrics.read_bytes(), read_lines(folder.metrics, folder.id)
    assert len(lines) == 3
    try:
        for content in flipped(sound, 150):
            folder.metrics.write_bytes(content)
            whole_lines = read_whole(folder.metrics, folder.id)
            assert whole_lines.records == lines[: len(whole_lines.records)]
            assert whole_lines.unread or len(whole_lines.records) == 3
    finally:
        folder.metrics.write_bytes(sound)


def test_a_flipped_bit_of_a_record_is_told_beside_a_table_that_does_not_count_it(whole: Place, tmp_path: Path) -> None:
    place = whole.copy(tmp_path)
    sound = {record.id: record.result for record in read_bench(place.store.folder).records}
    for label, name, again in (("hinton", "result.json", "trains it again"), ("none", "run.json", "writes it again")):
        flip_a_bit(place.find(label).path / name, 3)
        bench_read = read_bench(place.store.folder)
        (note,) = [note for note in bench_read.notes if f"/{name}: damaged (" in note]
        assert note.endswith(f"a bench that plans it {again} and keeps the file")
        assert all(record.result in (sound[record.id], None) for record in bench_read.records)
    assert sum(record.result is not None for record in bench_read.records) == len(sound) - 2


@pytest.mark.parametrize(
    "hows",
    [("empty", "half", "zeros"), ("ones", "garbage", "a folder"), ("nested", "gone", "another run's"), ("a flipped bit",) * 3],
)
@pytest.mark.parametrize("victim", ["run.json", "result.json"])
def test_damaged_records_are_told_and_change_no_number(
    half: Place, whole: Place, tmp_path: Path, victim: str, hows: tuple[str, ...]
) -> None:
    place = (whole if victim == "result.json" else half).copy(tmp_path)
    folders = [place.find(label) for label in THREE_RUNS]
    another = place.find("fitnet_two_stage", "pretrain").path / victim
    for folder, how in zip(folders, hows, strict=True):
        damage(folder.path / victim, how, another)
    ended = bench(place)
    assert content(place) == content(whole)
    for folder, how in zip(folders, hows, strict=True):
        assert (f"{folder.path / victim}: " in ended.notes) == (how != "gone")


@pytest.mark.parametrize(
    "hows", [("empty", "half", "zeros"), ("a flipped bit", "garbage", "a folder"), ("nested", "gone", "no record"), ("another run's",) * 3]
)
def test_damaged_metrics_are_told_and_change_no_result(half: Place, whole: Place, tmp_path: Path, hows: tuple[str, ...]) -> None:
    place = half.copy(tmp_path)
    folders = [place.find(label) for label in THREE_RUNS]
    for folder, how in zip(folders, hows, strict=True):
        damage(folder.metrics, how, place.find("fitnet_two_stage", "pretrain").metrics)
    ended = bench(place)
    mine, theirs = ({key: value for key, value in content(one).items() if "metrics" not in key} for one in (place, whole))
    assert mine == theirs
    for folder in folders:
        assert f"{folder.metrics}: damaged; 1 line expected, 0 readable" in ended.notes
        assert content(place)[f"{folder.id} metrics"] == content(whole)[f"{folder.id} metrics"][1:]


def test_no_line_of_an_earlier_try_stays_when_a_run_begins_again(half: Place, whole: Place, tmp_path: Path) -> None:
    place = half.copy(tmp_path)
    folder = place.find("hinton")
    (first,) = folder.metrics.read_text().splitlines()
    folder.metrics.write_text(first.replace('"loss":', '"loss":1') + "\n")
    damage(folder.checkpoint, "half", folder.checkpoint)
    bench(place)
    assert content(place) == content(whole)


SWITCH = {"on": False}


@pytest.fixture
def flaky() -> Iterator[None]:
    """Methods whose numbers end, while the switch is on, at step 5, as on a machine that errs: in the loss, in its gradient alone."""

    @kdzoo.register("nan_loss", needs=kdzoo.Need.LOGITS)
    def nan_loss(student, teacher, batch):
        factor = float("nan") if SWITCH["on"] and 5 <= batch.clock.step < batch.clock.steps - 1 else 1.0
        return (student.logits - teacher.logits.detach()).pow(2).mean() * factor

    @kdzoo.register("nan_gradient", needs=kdzoo.Need.LOGITS)
    def nan_gradient(student, teacher, batch):
        apart = (student.logits - teacher.logits.detach()).pow(2).mean()
        return apart + (0 * apart).sqrt() if SWITCH["on"] and batch.clock.step == 5 else apart  # sqrt has no slope at 0

    SWITCH["on"] = True
    yield
    SWITCH["on"] = False


def test_a_failed_run_is_repeated_from_what_does_not_hold_its_failure(flaky: None, tmp_path: Path) -> None:
    """A checkpoint is due after every step here, the loss is looked at when the epoch ends."""
    place, undisturbed = Place(tmp_path / "a"), Place(tmp_path / "b")
    methods = ["nan_loss", "nan_gradient"]
    failed = bench(place, methods=methods, checkpoint_seconds=1e-9).outcome.failed
    assert failed.keys() == {place.find(method).id for method in methods}
    assert all("NaN" in reason for reason in failed.values())
    assert not any(place.find(method).checkpoint.exists() for method in methods)
    SWITCH["on"] = False
    assert not bench(place, methods=methods, retry_failed=True).outcome.failed
    assert not bench(undisturbed, methods=methods).outcome.failed
    assert content(place) == content(undisturbed)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes: the system refuses the write, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_more_stops_a_bench_which_then_goes_on(whole: Place, tmp_path: Path) -> None:
    """First not even a plan fits, then no checkpoint of the teacher, of a student, at last no weights."""
    place = Place(tmp_path)
    for size in (500, 20_000, 100_000, 300_000):
        with files_of_at_most(size), pytest.raises(StoreError, match="cannot write"):
            bench(place, checkpoint_seconds=1e-9)
        assert not [path for path in place.folder.rglob(".*") if not path.name.endswith(".lock")]
    assert not bench(place).outcome.failed
    assert content(place) == content(whole)


def write_student_of_another(place: Place, tmp_path: Path) -> Path:
    """The same weights, owned by another run."""
    from kdzoo.runs.seals import write_tensors

    tensors, metadata = read_tensors(place.teacher.student, place.teacher.id)
    path = tmp_path / "another.safetensors"
    write_tensors(path, tensors, {**{k: v for k, v in metadata.items() if k != "digest"}, "owner": "none-000000000000"})
    return path
