"""benchmarks/speed.py: its sides run, its numbers are what it says they are, and its JSON holds what is promised."""

import json
import math
import os
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import cache_mixes
import speed
from speed_base import Compared, report
from speed_base import alternate as alternate_checkouts
from speed_clock import LeftOut, Side, Timing, alternate, with_peak
from speed_kdzoo import cold, live, training, warm, whole_fits
from speed_peers import torchdistill
from speed_report import targets
from speed_setup import Setup, cohort_for, sweep
from speed_share import share_of
from warm_python import run_warm

from kdzoo.training.run_data import load_dataset

CPU = torch.device("cpu")
SCRIPT = Path(speed.__file__)


@pytest.fixture
def data(tmp_path):
    """A folder with 256 random images for training and 100 for testing, packed as CIFAR-100 is."""
    random = np.random.default_rng(0)
    (tmp_path / "cifar100").mkdir()
    for part, count in (("train", 256), ("test", 100)):
        images = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        np.savez(tmp_path / "cifar100" / f"{part}.npz", images=images, labels=np.arange(count) % 100)
    return tmp_path


@pytest.fixture
def setup(data, place):
    load_dataset.cache_clear()
    yield Setup("resnet14", "resnet8", 16, load_dataset("cifar100", str(data), None), CPU, 1, False, "float32", place)
    load_dataset.cache_clear()


def test_the_script_measures_two_sides_and_writes_what_the_readme_promises(data, tmp_path):
    out = tmp_path / "speed"
    words = ["--quick", "--pairs", "resnet14/resnet8", "--batch", "16", "--sides", "plain,kdzoo", "--sections", "sides,growth"]
    words += ["--seconds", "0.01", "--threads", "1", "--out", str(out)]
    done = run_warm([sys.executable, str(SCRIPT), *words], env={**os.environ, "KDZOO_DATA": str(data)})
    assert done.returncode == 0, done.stderr
    content = json.loads((out / "cpu.json").read_text())
    assert {"kdzoo", "torch", "timm", "git", "device", "threads", "processor", "cores", "memory_bytes"} <= content["environment"].keys()
    assert {"load_average_before", "load_average_after", "changed_since_commit", "packages"} <= content["environment"].keys()
    (cell,) = content["cells"]
    assert (cell["pair"], cell["batch"], cell["left_out"]) == ("resnet14/resnet8", 16, {})
    assert list(cell["sides"]) == ["plain", "kdzoo"]
    for side in cell["sides"].values():
        assert len(side["step_seconds_of_rounds"]) == content["settings"]["repeats"] == 2
        assert side["step_seconds"] == pytest.approx(np.median(side["step_seconds_of_rounds"]))
        assert side["images_per_second"] == pytest.approx(16 / side["step_seconds"])
        assert side["seconds_per_run_and_epoch"] == pytest.approx(50_000 / 16 * side["step_seconds"])
        assert side["memory_bytes"] > 4 * 83_892  # resnet8's parameters at least
    assert [(grown["by"], grown["batch"]) for grown in content["growth"]] == [("runs", 16), ("batch", 32), ("methods", 16), ("images", 16)]
    assert [content["growth"][2]["sides"][f"kdzoo_methods of {count}"]["runs"] for count in (1, 3)] == [1, 3]
    assert content["growth"][3]["opening_seconds"] > 0
    assert "on 128 images an epoch's first batch is ready after" in (out / "cpu.md").read_text()
    assert [content["growth"][0]["sides"][f"kdzoo_sweep of {runs}"]["runs"] for runs in (1, 3)] == [1, 3]
    assert content["not_reached"] == []
    assert "resnet14/resnet8" in done.stdout
    assert "kdzoo" in (out / "cpu.md").read_text()


def test_fewer_than_five_rounds_and_unknown_names_are_refused_together(capsys):
    with pytest.raises(SystemExit):
        speed.options(["--repeats", "3", "--sides", "kdzu", "--sections", "growing", "--pairs", "resnet56", "main"])
    said = capsys.readouterr().err
    assert all(
        problem in said
        for problem in (
            "BASE: only with --quick",
            "unknown 'kdzu'",
            "unknown 'growing'",
            "5 or more",
            "expected TEACHER/STUDENT, got 'resnet56'",
        )
    )


def test_a_side_that_breaks_is_named_with_its_error_and_the_others_are_measured(setup):
    def broken(_):
        raise ValueError("no such thing")

    settings = speed.options(["--quick", "--seconds", "0.01"]).settings
    cell, timings = speed.measured(setup, {"broken": broken, "student": speed.SIDES["student"]}, settings, lambda _: None)
    assert cell["left_out"] == {"broken": "failed: ValueError: no such thing"}
    assert list(timings) == list(cell["sides"]) == ["student"]


def test_sides_take_turns_and_every_round_begins_with_another():
    said = []

    def side(name, seconds):
        def step():
            said.append(name)
            time.sleep(seconds)
            return 4

        return Side(step, runs=2, settle=0)

    sides = {"a": side("a", 0.02), "b": side("b", 0.04)}
    timings = alternate(sides, batch=8, repeats=5, seconds=0.02, device=CPU, memory={"a": 7})
    assert timings["a"].steps == timings["b"].steps == 1
    assert "".join(said)[-10:] == "abbaabbaab"
    assert (timings["a"].memory, timings["b"].memory) == (7, None)
    assert 0.08 <= timings["b"].median < 0.8  # a batch of 8 is two steps of 4 images
    assert timings["b"].per_run == timings["b"].median / 2
    assert timings["b"].images_per_second == pytest.approx(2 * 8 / timings["b"].median)


def test_two_checkouts_take_turns_and_a_slower_step_is_found_by_the_median_of_its_rounds():
    asked = []

    def asks(name, milliseconds):
        times = iter(milliseconds)

        def ask(side, steps):
            asked.append((name, side, steps))
            return next(times)

        return ask

    base, here = asks("base", [9.0, 2.0, 2.0, 4.0, 4.0, 2.0]), asks("here", [1.0, 2.0, 2.2, 4.4, 4.4, 9.0])
    (found,) = alternate_checkouts(base, here, {"student": 3}, rounds=5)
    turns = ["here base", "base here", "here base", "base here", "here base", "base here"]
    assert [name for name, _, _ in asked] == " ".join(turns).split()
    assert {(side, steps) for _, side, steps in asked} == {("student", 3)}
    assert found == Compared("student", (2.0, 2.0, 4.0, 4.0, 2.0), (2.0, 2.2, 4.4, 4.4, 9.0))
    assert found.ratio == pytest.approx(1.1)  # of 1.0, 1.1, 1.1, 1.1 and 4.5
    assert "ratio 1.100   (1.000 1.100 1.100 1.100 4.500)" in report([found])


def test_the_peak_of_memory_counts_what_was_freed_again():
    def act():
        large = torch.ones(1_000_000)
        twice = large * 2
        del large
        return twice[:10].clone()

    kept, peak = with_peak(act, CPU)
    assert kept.tolist() == [2.0] * 10
    assert 8_000_000 <= peak < 8_100_000


@pytest.mark.parametrize("runs", [1, 3, 9, 27])
def test_a_sweep_has_as_many_different_settings_as_it_says(runs):
    specs = sweep(runs)
    assert len({spec.model_dump_json() for spec in specs}) == len(specs) == runs
    assert {spec.label for spec in specs} == {"hinton"}


def test_the_floor_is_the_student_without_a_teacher(setup):
    cohort = cohort_for(setup, 0, "off")
    assert cohort.teacher is None
    assert [member.run.objective.label for member in cohort.members] == ["none"]


def test_a_run_that_drops_out_ends_the_measurement(setup):
    cohort = cohort_for(setup, 3, "off")
    steps = training(cohort)
    assert next(steps) == 16
    cohort.members[1].network = None
    with pytest.raises(RuntimeError, match="dropped out"):
        next(steps)


def test_a_warm_measurement_sees_the_views_of_one_epoch_again_and_again(setup):
    seen = []
    cohort = cohort_for(setup, 1, "off")
    steps = training(cohort, replay=True)
    network = cohort.teacher.network
    network.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    for _ in range(2 * cohort.steps_an_epoch):
        next(steps)
    first, second = seen[: cohort.steps_an_epoch], seen[cohort.steps_an_epoch :]
    assert len(first) == math.ceil(256 / 16)
    assert all(map(torch.equal, first, second))
    assert not torch.equal(first[0], first[1])


def test_warm_never_asks_the_teacher_and_cold_always_does(setup):
    rounds = {"batch": 16, "repeats": 2, "seconds": 0.01, "device": CPU, "memory": {}}
    timings = alternate({"cold": cold(setup, 1), "warm": warm(setup, 1)}, **rounds)
    assert timings["warm"].hits == 1
    assert timings["cold"].hits < 0.1
    assert alternate({"off": live(setup, 1)}, **rounds)["off"].hits is None


def test_a_profile_finds_every_part_of_a_step_and_no_more_than_its_time(setup):
    side = live(setup, 1)
    share = share_of(side, 3, CPU)
    began = time.perf_counter()
    profiled = share_of(side, 3, CPU)
    assert 3 * sum(profiled.seconds.values()) <= time.perf_counter() - began
    assert min(share.seconds[part] for part in ("networks", "loss", "backward", "views", "optimizer")) > 0
    assert share.seconds["cache"] == 0
    assert 0 < share.other < 1
    assert share.busy is None


def test_a_suite_that_is_not_installed_is_left_out_by_name(setup, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdistill", None)
    with pytest.raises(LeftOut, match="torchdistill is not installed"):
        torchdistill(setup)


def test_targets_are_the_ratios_that_were_asked_for():
    timing = partial(Timing, batch=64, steps=1)
    timings = {
        "student": timing(1, seconds=(0.10,)),
        "teacher": timing(1, seconds=(0.18,)),
        "plain_kernels": timing(1, seconds=(0.28,)),
        "timm": timing(1, seconds=(0.33,)),
        "torchdistill": timing(1, seconds=(0.30,)),
        "kdzoo": timing(1, seconds=(0.27,)),
        "kdzoo_cold": timing(9, seconds=(1.08,)),
        "kdzoo_warm": timing(9, seconds=(0.90,)),
    }
    found = {row["target"]: row for row in targets("resnet32x4/resnet8x4", timings, "cpu")}
    expected = {  # found, asked, met
        "a run of a sweep of 9, cache warm, over the student alone": (1.0, 1.03, True),
        "a run of a sweep of 9, cache cold, over the student alone": (1.2, 1.24, True),
        "the plain loop with the same kernels over a run of a sweep of 9, cache warm": (2.8, 2.52, True),
        "the best of the other suites over a run of a sweep of 9, cache warm": (3.0, 2.5, True),
        "a single run over the best of the other suites": (0.9, 1.0, True),
    }
    assert found.keys() == expected.keys()
    for name, (ratio, asked, met) in expected.items():
        assert found[name]["found"] == pytest.approx(ratio), name
        assert found[name]["asked"] == pytest.approx(asked), name
        assert found[name]["met"] is met, name


def test_a_whole_fit_is_a_real_one_and_scaled_to_240_epochs_of_a_run(setup):
    (found,) = whole_fits(setup, 3, 2, {"off": "off"})
    assert (found["cache"], found["runs"], found["epochs"]) == ("off", 3, 2)
    assert found["seconds_of_240_epochs_a_run"] == pytest.approx(found["seconds"] * 240 / 2 / 3)
    results = [json.loads(file.read_text()) for file in setup.scratch.glob("runs/*/result.json")]
    assert [result["train"]["steps"] for result in results] == [32] * 3
    assert {result["last"]["test"]["n"] for result in results} == {100}


def test_the_table_of_the_caches_costs_is_that_of_the_record():
    record = json.loads(cache_mixes.RESULTS.read_text())
    assert cache_mixes.table(record["rows"]) in (SCRIPT.parent.parent / "docs" / "teacher-cache.md").read_text()
