"""The teacher cache: the same numbers as a live teacher, whoever filled it and whenever."""

import json
import math
import multiprocessing
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from trained_teachers import written_bench

from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.plugins import load_plugin
from kdzoo.contract.shapes import Shapes, StageShape
from kdzoo.errors import InputError
from kdzoo.files import cache_folder
from kdzoo.models.build import build_network
from kdzoo.models.identity import identity
from kdzoo.models.network import freeze
from kdzoo.models.placement import Placement
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.spec import NetworkSpec
from kdzoo.runs.store import teacher_store
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.planned import Plan
from kdzoo.suite.run.train_runs import train_runs
from kdzoo.suite.run.worker_state import WorkerState
from kdzoo.teachers.answers import forward_block, max_relative_difference
from kdzoo.teachers.cache import TeacherCache, rows_at_once
from kdzoo.teachers.columns import Column
from kdzoo.teachers.disk import MappedFile, join_spans, size_text
from kdzoo.teachers.open_cache import open_cache
from kdzoo.training.cohort import Cohort
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.run_data import load_run_data
from kdzoo.training.run_student import build_member
from kdzoo.training.run_teacher import load_teacher
from kdzoo.training.train import Stopped, fit

OFF, AUTO = WorkerOptions(teacher_cache=0), WorkerOptions(teacher_cache=None)
FINITE = {"recipe.augment.crop": "pad", "recipe.augment.pad": 1, "recipe.augment.flip": True}
ENDLESS = {"recipe.augment.crop": "resized", "recipe.augment.pad": 0, "recipe.augment.size": 8, "recipe.augment.flip": False}
CHANGED = {**FINITE, "recipe.augment.randaugment": 1, "recipe.augment.cutout": 2}
MIXED = {**FINITE, "recipe.mixup": 0.5, "recipe.cutmix": 1.0, "recipe.mix_prob": 0.8}


REPEATED = {**MIXED, "recipe.view_epochs": 1}


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)


def planned(folder: Path, augment: dict[str, object], **options: object) -> Plan:
    """A small bench whose students see augmented images; the last batch of an epoch is short."""
    as_large = {"teacher_recipe.augment.size": 8} if augment is ENDLESS else {}
    changes = {"teacher_recipe.augment.crop": "none", "teacher_recipe.augment.pad": 0, **augment, **as_large}
    return written_bench(folder, **{"epochs": 3, "limit": 230, "seeds": "2", "methods": "hinton,rkd", **options, "set": changes})


def trained(made: Plan, options: WorkerOptions, *, together: bool = True) -> dict[str, dict[str, bytes]]:
    """Every tensor of every student, byte for byte, after training each seed's runs as a cohort or one by one."""
    by_seed: dict[int, list[str]] = {}
    for student in made.students:
        by_seed.setdefault(student.run.seed, []).append(student.run.id)
    for ids in by_seed.values():
        for group in [ids] if together else [[one] for one in ids]:
            train_runs(made.store, group, options, WorkerState(), lambda _: None, lambda: False)
    files = {p.run.id: load_file(made.store.run(p.run.id).student) for p in made.students}
    return {run_id: {name: value.numpy().tobytes() for name, value in state.items()} for run_id, state in files.items()}


def reports(made: Plan) -> list[dict[str, int]]:
    results = [made.store.run(p.run.id).result() for p in made.students if p.run.teacher is not None]
    return [result["teacher_cache"] for result in results]


def cohort(made: Plan, options: WorkerOptions) -> Cohort:
    """The bench's taught runs of seed 0, ready to train."""
    located_runs = [LocatedRun.read(made.store.run(p.run.id)) for p in made.students if p.run.teacher is not None and p.run.seed == 0]
    images, parts = load_run_data(located_runs[0])
    execution = Placement(options)
    served = load_teacher(located_runs[0], images, parts, execution, Modules())
    assert served is not None
    members = [build_member(located, images, parts, served[1], execution, Modules()) for located in located_runs]
    return Cohort(members, parts, served[0], execution)


@pytest.mark.slow
@pytest.mark.parametrize("augment", [FINITE, ENDLESS, CHANGED, MIXED], ids=["finite", "endless", "changed", "mixed"])
def test_a_student_ends_with_the_same_weights_whether_its_teacher_is_remembered_or_not(tmp_path, augment):
    live, cold, warm, alone = (planned(tmp_path / name, augment, name="b") for name in ("live", "cold", "warm", "alone"))
    expected = trained(live, OFF)
    assert trained(cold, AUTO) == expected
    assert trained(warm, AUTO) == expected
    assert trained(alone, AUTO, together=False) == expected
    assert [report["lookups"] == report["hits"] for report in reports(warm)] == [True] * 4
    assert reports(live) == [None] * 4
    # views of an endless augmentation are those of one seed; a finite one's are shared by all
    assert reports(cold)[-1]["hits"] > 0 if augment is FINITE else all(report["hits"] == 0 for report in reports(cold))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("methods", "augment"),
    [("crld,at", FINITE), ("mlld", FINITE), ("mlld", MIXED), ("simkd,ensemble_losses", FINITE), ("bss", FINITE)],
    ids=["crld,at", "mlld", "mlld mixed", "simkd,ensemble_losses", "bss"],
)
def test_second_views_stages_classifiers_and_networks_are_served_too(tmp_path, methods, augment):
    live, kept = (planned(tmp_path / name, augment, methods=methods, seeds="1", epochs=2) for name in ("live", "kept"))
    assert trained(live, OFF) == trained(kept, AUTO)
    assert all(report is not None for report in reports(kept))


@pytest.mark.parametrize("augment", [FINITE, MIXED], ids=["finite", "mixed"])
def test_an_interrupted_run_goes_on_from_what_was_remembered_to_the_same_weights(tmp_path, augment):
    live, cut = (planned(tmp_path / name, augment, seeds="1") for name in ("live", "cut"))
    asked = iter(range(10_000))
    ids = [p.run.id for p in cut.students]
    with pytest.raises(Stopped):
        train_runs(cut.store, ids, AUTO, WorkerState(), lambda _: None, lambda: next(asked) == 5)
    assert trained(cut, AUTO) == trained(live, OFF)


def test_views_that_come_again_are_asked_about_once(tmp_path):
    """Three epochs that show the views, mixes and batches of one: to the same weights as with a teacher that is asked each time."""
    live, kept = (planned(tmp_path / name, REPEATED, seeds="1", methods="hinton") for name in ("live", "kept"))
    assert trained(kept, AUTO) == trained(live, OFF)
    (report,) = reports(kept)
    assert report["hits"] == report["lookups"] * 2 // 3


def memory(folder: Path, rows: int = 6) -> TeacherCache:
    return TeacherCache(
        folder, [Column(Need.LOGITS, None, (3,), torch.float32)], samples=rows, views=1, block=2, device=torch.device("cpu")
    )


def said(values: torch.Tensor) -> Outputs:
    return Outputs.of({Need.LOGITS: values}, owner="teacher")


def test_what_one_process_wrote_another_reads_once_it_is_flushed(tmp_path):
    one, other = memory(tmp_path), memory(tmp_path)
    values = torch.randn(2, 3)
    one.write(torch.tensor([4, 1]), said(values))
    other.check_rows(torch.arange(6))
    assert not other.known.any()
    one.flush()
    other.check_rows(torch.arange(3))
    assert other.known.tolist() == [False, True, False, False, False, False]  # nothing is taken over that is not asked for
    other.check_rows(torch.arange(6))
    assert other.known.tolist() == [False, True, False, False, True, False]
    assert torch.equal(other.read(torch.tensor([4, 1]))[Need.LOGITS], values)
    assert other.damaged == 0


def test_on_a_cpu_processes_share_the_pages_of_the_file(tmp_path):
    one, other = memory(tmp_path), memory(tmp_path)
    one.write(torch.tensor([3]), said(torch.tensor([[1.0, 2.0, 3.0]])))
    assert other.read(torch.tensor([3]))[Need.LOGITS].tolist() == [[1.0, 2.0, 3.0]], "before anything is flushed"
    assert not other.known.any()


def test_a_new_cache_has_answered_nothing(tmp_path):
    assert memory(tmp_path).report() == {"lookups": 0, "hits": 0, "bytes": 0}


def test_a_difference_is_relative_to_the_largest_value():
    live = torch.tensor([[100.0, -400.0], [0.0, 1.0]])
    assert max_relative_difference(live + torch.tensor([[0.0, 0.0], [0.0, 2.0]]), live) == pytest.approx(2 / 400)
    assert max_relative_difference(torch.full((2,), 3e-7), torch.zeros(2)) == pytest.approx(0.3, rel=1e-3), "not to less than 1e-6"
    assert max_relative_difference(live, live.where(live > 0, math.nan)) == math.inf


@pytest.mark.parametrize(("limit", "rows"), [(1, 1), (20, 1), (39, 1), (40, 2), (2000, 100)])
def test_as_many_rows_are_handled_at_once_as_fit_and_one_at_least(limit, rows):
    assert Column(Need.LOGITS, None, (3,), torch.float32).row_bytes == 20  # of which the seal has eight
    assert rows_at_once(Column(Need.LOGITS, None, (3,), torch.float32), limit) == rows


@pytest.mark.parametrize(
    ("first", "last", "joined"),
    [
        ([], [], []),
        ([0], [0], [(0, 0)]),
        ([0, 1, 2], [0, 1, 2], [(0, 2)]),  # they touch
        ([0, 2], [0, 2], [(0, 0), (2, 2)]),  # a page lies between them
        ([0, 3, 4, 9], [3, 3, 5, 9], [(0, 5), (9, 9)]),
    ],
)
def test_ranges_of_pages_that_touch_or_overlap_are_one(first, last, joined):
    assert join_spans(np.array(first, dtype=np.int64), np.array(last, dtype=np.int64)) == joined


def test_disk_space_that_was_taken_is_not_asked_for_again(tmp_path, monkeypatch):
    taken = []
    take = os.posix_fallocate
    monkeypatch.setattr(os, "posix_fallocate", lambda *request: (taken.append(request[1:]), take(*request)))
    file = MappedFile(tmp_path / "values", np.dtype(np.float32), (5000, 3))  # 60,000 bytes: 15 pages of 4,096
    rows = np.arange(0, 2000)
    file.reserve(rows)
    assert taken == [(0, 6 * 4096)]
    file.reserve(rows)
    file.reserve(np.array([1999]))
    assert taken == [(0, 6 * 4096)]
    file.reserve(np.array([4999]))
    assert taken[1:] == [(14 * 4096, 60_000 - 14 * 4096)]


def test_maps_before_the_activation_are_expected_of_networks_that_have_them_alone():
    stages = (StageShape(8, 4, 4, reduction=2), StageShape(16, 2, 2, reduction=4))
    plain = Shapes(stages=stages, embedding=16, classes=10)
    assert Column.expected(replace(plain, preact=False), Need.PREACT) == ()
    assert [column.shape for column in Column.expected(replace(plain, preact=True), Need.PREACT)] == [(8, 4, 4), (16, 2, 2)]


def _fill(folder: str, start: int) -> None:
    kept = memory(Path(folder), rows=1000)
    for first in range(0, 1000, 2):
        rows = (torch.tensor([first, first + 1]) + start) % 1000
        kept.write(rows, said(rows[:, None] * torch.tensor([1.0, 2.0, 3.0])))
        kept.flush()


@pytest.mark.slow
def test_two_processes_fill_one_cache_at_the_same_time(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_fill, args=(str(tmp_path), start)) for start in (0, 500)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    kept = memory(tmp_path, rows=1000)
    kept.check_rows(torch.arange(1000))
    assert kept.known.all()
    rows = torch.arange(1000)
    assert torch.equal(kept.read(rows)[Need.LOGITS], rows[:, None] * torch.tensor([1.0, 2.0, 3.0]))


def test_rows_that_were_written_but_not_flushed_are_unknown_after_a_crash(tmp_path):
    memory(tmp_path).write(torch.tensor([0, 1]), said(torch.ones(2, 3)))
    again = memory(tmp_path)
    again.check_rows(torch.arange(6))
    assert not again.known.any()
    assert again.damaged == 0


def test_the_last_bits_of_an_answer_do_not_depend_on_who_else_is_asked_about(tmp_path):
    """What makes the cache exact: a block of fixed size, and answers that stand at any place in it."""
    made = planned(tmp_path, FINITE, seeds="1")
    taught = cohort(made, OFF)
    images = taught.splits.train.images[: taught.block]
    need = Need.LOGITS | Need.EMBEDDING | Need.STAGES
    whole = forward_block(taught.teacher.network, need, images, taught.block, taught.recipe)
    for count in (1, 7, taught.block - 1):
        order = torch.randperm(taught.block, generator=torch.Generator().manual_seed(count))[:count]
        part = forward_block(taught.teacher.network, need, images[order], taught.block, taught.recipe)
        assert torch.equal(part.logits, whole.logits[order])
        assert torch.equal(part.embedding, whole.embedding[order])
        assert all(torch.equal(a, b[order]) for a, b in zip(part.stages, whole.stages, strict=True))


def test_another_teacher_or_other_code_has_another_cache(tmp_path):
    def network(seed: int) -> nn.Module:
        spec = NetworkSpec(name="digits_teacher", classes=10)
        return freeze(build_network(spec, channels=1, side=8, mean=(0.5,), std=(0.5,), seed=seed))

    first, same, other = network(0), network(0), network(1)
    assert identity(first) == identity(same) != identity(other)
    same.mean.fill_(0.25)
    assert identity(first) != identity(same)
    same = network(0)
    next(module for module in same.modules() if isinstance(module, nn.BatchNorm2d)).eps = 1e-3
    assert identity(first) != identity(same)


NETWORK = """
import kdzoo
from torch import nn
from {module} import scaled

class Scaled(nn.Module):
    def __init__(self, num_classes, in_chans):
        super().__init__()
        self.head = nn.Linear(in_chans, num_classes)

    def forward(self, x):
        return self.head(scaled(x.mean((2, 3))))

kdzoo.register_network("scaled_beside", Scaled)
"""


@pytest.mark.parametrize(("module", "file"), [("helpers", "helpers.py"), ("below.helpers", "below/helpers.py")])
def test_a_network_whose_helper_is_changed_is_another_and_a_comment_changes_nothing(tmp_path, module, file):
    """The class, its weights and its own file stay as they are; what it says of an image does not."""
    helper = tmp_path / file
    helper.parent.mkdir(exist_ok=True)
    (tmp_path / "plugin.py").write_text(NETWORK.format(module=module))
    (tmp_path / "factors.py").write_text("FACTOR = 2\n")
    (tmp_path / "unrelated.py").write_text("FACTOR = 2\n")

    def asked() -> tuple[str, torch.Tensor]:
        load_plugin(tmp_path / "plugin.py")
        spec = NetworkSpec(name="scaled_beside", classes=10)
        network = freeze(build_network(spec, channels=1, side=8, mean=(0.5,), std=(0.5,), seed=0))
        return identity(network), network.logits(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))

    code = "from factors import FACTOR\n\ndef scaled(x):\n    return FACTOR * x\n"
    helper.write_text(code)
    first, said = asked()
    (tmp_path / "unrelated.py").write_text("FACTOR = 3\n")
    helper.write_text(code + "# no more\n")
    assert asked()[0] == first
    helper.write_text(code.replace("* x", "* x * x"))
    second, other = asked()
    assert second != first
    assert not torch.equal(said, other)
    (tmp_path / "factors.py").write_text("FACTOR = 3\n")  # which the helper imports
    third, another = asked()
    assert third not in (first, second)
    assert not torch.equal(other, another)


def test_the_identity_of_a_network_without_helpers_is_as_it_was(monkeypatch):
    """Nothing that is kept for the package's own networks and timm's becomes another's."""
    spec = NetworkSpec(name="digits_teacher", classes=10)
    network = freeze(build_network(spec, channels=1, side=8, mean=(0.5,), std=(0.5,), seed=0))
    before = identity(network)
    monkeypatch.setattr("kdzoo.models.identity.modules_beside", None)  # not asked
    assert identity(network) == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [("off", 0), (False, 0), ("auto", None), (None, None), ("4GB", 4 * 1024**3), ("1.5m", 1.5 * 1024**2), ("700", 700)],
)
def test_a_budget_is_off_auto_or_a_size(text, expected):
    assert bench_config({"teacher_cache": text}, None).teacher_cache == expected


def test_a_budget_that_is_no_size_is_refused(kdzoo):
    said = kdzoo("bench", "--quick", "--teacher-cache", "lots")
    assert said.status == 2
    assert "teacher_cache: expected off, auto or a size such as 500MB or 4GB, got 'lots'" in said.err


@pytest.mark.parametrize(
    ("former", "present"), [("--teacher-memo", "--teacher-cache"), ("--resident", "--image-cache")], ids=["teacher cache", "image cache"]
)
def test_a_former_name_of_an_option_leads_to_the_present_one(kdzoo, former, present):
    said = kdzoo("bench", "--quick", former, "off")
    assert said.status == 2
    assert f"unknown option {former}; did you mean {present}?" in said.err
    key = former.strip("-").replace("-", "_")
    with pytest.raises(InputError, match=f"{key}: unknown; did you mean '{present.strip('-').replace('-', '_')}'"):
        bench_config({key: "off"}, None)


def opened(limit: int | None, columns: list[Column], read: Need, name: str = "m") -> TeacherCache | str:
    return open_cache({"about": name}, name, columns, read, samples=10, views=2, block=2, device=torch.device("cpu"), limit=limit)


def test_what_is_read_must_fit_and_what_is_kept_besides_may(tmp_path):
    logits = Column(Need.LOGITS, None, (5,), torch.float32)
    embedding = Column(Need.EMBEDDING, None, (100,), torch.float32)
    enough = 20 * (4 * 5 + 8)  # a row of five numbers and its seal
    small = opened(enough, [logits, embedding], Need.LOGITS)
    assert isinstance(small, TeacherCache)
    assert [column.name for column in small.columns] == ["logits"]
    refused = opened(enough - 1, [logits, embedding], Need.LOGITS)
    assert isinstance(refused, str)
    assert "--teacher-cache SIZE" in refused
    whole = opened(None, [logits, embedding], Need.LOGITS, "other")
    assert isinstance(whole, TeacherCache)
    assert [column.name for column in whole.columns] == ["logits", "embedding"]
    files = [file for kind in ("f32", "seal") for file in whole.folder.glob(f"*.{kind}")]
    assert whole.bytes == 20 * (4 * 105 + 2 * 8) == sum(file.stat().st_size for file in files)


def test_stages_that_do_not_fit_leave_logits_and_embedding_their_cache(tmp_path):
    logits = Column(Need.LOGITS, None, (5,), torch.float32)
    embedding = Column(Need.EMBEDDING, None, (10,), torch.float32)
    stages = [Column(Need.STAGES, number, (4, 8, 8), torch.float32) for number in range(2)]
    cache = opened(2000, [logits, embedding, *stages], Need.LOGITS | Need.STAGES)
    assert isinstance(cache, TeacherCache)
    assert [column.name for column in cache.columns] == ["logits", "embedding"]
    (note,) = cache.notes
    assert re.search(
        r"would take [\d.]+ kB, more than [\d.]+ kB; .*keeps logits and embedding, .* in every step for .* read its stages$", note
    )
    both = opened(None, [logits, embedding, *stages], Need.LOGITS | Need.STAGES, "both")
    assert isinstance(both, TeacherCache)
    assert len(both.columns) == 4
    assert not both.notes


def test_disk_space_is_taken_as_rows_are_reserved(tmp_path):
    rows, wide = 4096, Column(Need.LOGITS, None, (1024,), torch.float32)  # a page for each row
    place = {"samples": rows, "views": 1, "block": 2, "device": torch.device("cpu")}
    cache = TeacherCache(tmp_path, [wide], **place)
    assert cache.report()["bytes"] <= 2 * 4096
    assert cache.reserve(torch.tensor([7, 4000, 8, 7]))
    assert 3 * 4096 <= cache.report()["bytes"] <= 10 * 4096
    assert cache.reserve(torch.arange(100, 200))
    cache.write(torch.tensor([150]), said(torch.ones(1, 1024)))
    cache.flush()
    assert 100 * 4096 <= cache.report()["bytes"] < 150 * 4096
    again = TeacherCache(tmp_path, [wide], **place)
    again.check_rows(torch.arange(rows))
    assert again.known.nonzero().flatten().tolist() == [150]


def test_the_memos_that_were_not_opened_for_longest_make_room(tmp_path):
    column = Column(Need.LOGITS, None, (5,), torch.float32)
    for age, name in enumerate(["old", "older", "oldest"]):
        cache = opened(None, [column], Need.LOGITS, name)
        assert isinstance(cache, TeacherCache)
        os.utime(cache.folder / "about.json", (1e9 - age, 1e9 - age))
    (old,) = cache_folder().glob("teacher-cache/old-*")
    opened(sum(512 * f.stat().st_blocks for f in old.iterdir()), [column], Need.LOGITS, "new")
    assert sorted(path.name.partition("-")[0] for path in (cache_folder() / "teacher-cache").iterdir()) == ["new", "old"]


def test_half_precision_comes_back_as_it_was_said(tmp_path):
    column = Column(Need.LOGITS, None, (3,), torch.bfloat16)
    kept = TeacherCache(tmp_path, [column], samples=4, views=1, block=2, device=torch.device("cpu"))
    values = torch.randn(2, 3).bfloat16()
    kept.write(torch.tensor([0, 3]), said(values))
    back = kept.read(torch.tensor([0, 3]))[Need.LOGITS]
    assert back.dtype == torch.bfloat16
    assert torch.equal(back, values)


def test_what_a_teacher_says_of_the_test_images_is_computed_once(tmp_path, monkeypatch):
    made = planned(tmp_path, FINITE, seeds="1")
    first = cohort(made, AUTO).teacher
    monkeypatch.setattr("kdzoo.teachers.teacher.predict", None)  # not called any more
    again = cohort(made, AUTO).teacher
    assert first is not None
    assert again is not None
    assert torch.equal(first.test, again.test)
    assert first.val_metrics == again.val_metrics


@pytest.mark.slow
def test_a_teacher_is_asked_with_its_students_threads_once_for_all_processes(kdzoo, place):
    """It is trained with the threads of both processes: with two, its predictions would not be those its students need."""
    said = kdzoo("bench", "--methods", "hinton", "--quick", "--temperatures", 4, "--jobs", 2, "--threads", 1)
    assert said.status == 0, said.err
    (kept,) = cache_folder().glob("teacher-cache/*/predictions.safetensors")
    assert json.loads((kept.parent / "about.json").read_text())["threads"] == 1
    (teacher,) = teacher_store().folder.glob("runs/*/result.json")
    assert json.loads(teacher.read_text())["environment"]["threads"] == 2


def test_about_json_says_what_a_cache_stands_for(tmp_path):
    made = planned(tmp_path, FINITE, seeds="1")
    kept = cohort(made, AUTO).open_teacher_cache()
    assert isinstance(kept, TeacherCache)
    about = json.loads((kept.folder / "about.json").read_text())
    assert about["augment"]["pad"] == 1
    assert {"teacher", "data", "precision", "block", "channels_last", "device"} <= set(about)
    assert kept.views == 3 * 3 * 2


def test_a_run_that_fails_leaves_the_cache_to_its_neighbours(tmp_path):
    made = planned(tmp_path, FINITE, seeds="1")
    ready = cohort(made, AUTO)
    kept = ready.open_teacher_cache()
    assert isinstance(kept, TeacherCache)
    ready.teacher_cache = kept
    ready.members[0].optimizer.param_groups[0]["params"][0].data.fill_(float("nan"))
    fit(ready, emit=lambda _: None, stop=lambda: False)
    assert [member.failure is None for member in ready.members] == [False, True]
    assert kept.hits + int(kept.known.sum()) >= kept.lookups


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0.0 kB"), (700, "0.7 kB"), (1024**2 - 1, "1024.0 kB"), (5 * 1024**2, "5.0 MB"), (3 * 1024**3, "3.0 GB")]
)
def test_a_small_size_is_not_told_as_nothing(count, text):
    assert size_text(count) == text
