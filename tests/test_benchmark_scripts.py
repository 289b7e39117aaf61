"""Every script of the table in benchmarks/README.md runs, as small as it can be, and prints or writes what it says.

A script without a case here, or a test of its own that is named here, fails. What it measures is nobody's claim at this size.
"""

import hashlib
import json
import os
import re
import runpy
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from recordings import record
from warm_python import run_warm

from kdzoo.contract.methods import REGISTRY
from kdzoo.data.sources import load
from kdzoo.runs.store import RunFolder
from kdzoo.suite.plan.edition import Edition
from kdzoo.suite.proof.reference import read_points
from kdzoo.suite.report.verified_file import VerifiedRun

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
ROW = re.compile(r"^\| (`\w+\.py`(?:, `\w+\.py`)*) \|", re.MULTILINE)
TABLE = sorted(name for cell in ROW.findall((BENCHMARKS / "README.md").read_text()) for name in re.findall(r"`(\w+\.py)`", cell))
TESTED_ELSEWHERE = {
    "gpu.py": "test_gpu_script.py",
    "gpu_floors.py": "test_gpu_script.py",
    "mutants.py": "test_mutants.py",
    "nccl.py": "test_nccl_script.py",
    "same_weights.py": "test_same_numbers.py",
    "speed.py": "test_speed_harness.py",
    "steps.py": "zoo/test_training_steps.py",
}
SLOW = {"cpu_targets.py", "launchers.py"}
PARTS = {"speed_side.py"}
"""scripts that another script starts"""


@dataclass(frozen=True)
class Place:
    """An empty folder, in which a script is run as a user runs it."""

    folder: Path

    def run(self, *words: object, environment: Mapping[str, str] | None = None) -> str:
        """What a command of Python's prints; it must succeed."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        done = run_warm([sys.executable, *map(str, words)], cwd=self.folder, env={**inherited, **(environment or {})})
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    def read(self, name: str) -> dict:
        return json.loads((self.folder / name).read_text())


LIST_TESTS = f"""
import importlib, sys
sys.path.insert(0, {str(BENCHMARKS)!r})
for name, test in vars(importlib.import_module(sys.argv[1])).items():
    if name.startswith("test_"):
        values = [value for mark in getattr(test, "pytestmark", []) for value in mark.args[1]]
        print(*([f"{{name}}[{{value}}]" for value in values] or [name]), sep="\\n")
"""
"""prints the tests of a module of benchmarks/, without the second that pytest takes to collect them"""

Claim = Callable[[Place], None]
CLAIMS: dict[str, Claim] = {}


def claim_of(script: str) -> Callable[[Claim], Claim]:
    """Registers the function as what this script is claimed to do."""

    def register(claim: Claim) -> Claim:
        CLAIMS[script] = claim
        return claim

    return register


@claim_of("advice.py")
def it_prints_the_regret_on_every_table_and_its_mean(place: Place) -> None:
    said = place.run(BENCHMARKS / "advice.py")
    tables = re.findall(r"^\| .*\(\d+ known\) .*\|$", said, re.MULTILINE)
    assert sum(map(int, re.findall(r"over (\d+) tables? a mean regret of ", said))) == len(tables)
    judged = sum("| yes |" in row for row in tables)
    assert ("On tables that came later: over " in said) == (judged > 0)


@claim_of("text_baseline.py")
def it_names_the_classes_of_a_benchs_test_texts_by_their_words(place: Place) -> None:
    """On texts that one word tells apart, in a bench that is planned alone."""
    words = {"sea": "fish", "sky": "bird"}
    rows = [f"a {words[label]} number {number} of the {label},{label}" for number in range(60) for label in words]
    (place.folder / "texts.csv").write_text("\n".join(["text,label", *rows]))
    texts = load(f"text:{place.folder / 'texts.csv'}")
    run, about = RunFolder(min((ROOT / "results" / "text" / "runs").glob("none-*"))).read_plan()
    data = run.data.model_copy(
        update={"name": texts.name, "classes": 2, "fingerprint": texts.fingerprint, "limit": None, "val_fraction": 0.2}
    )
    planned = run.model_copy(update={"data": data})
    about = {**about, "paths": {"data": f"text:{place.folder / 'texts.csv'}"}}
    RunFolder(place.folder / "bench" / "runs" / planned.id).plan(planned, about)
    said = place.run(BENCHMARKS / "text_baseline.py", "bench")
    assert re.search(r"right for 100\.00 % of \d+ test texts", said)


@claim_of("augment.py")
def it_times_every_augmentation_on_both_sides(place: Place) -> None:
    said = place.run(BENCHMARKS / "augment.py", "--batch", 4, "--rounds", 1, "--write", "out")
    content = place.read("out/augment.json")
    assert content["batch"] == 4
    names = {row["augmentation"] for row in content["rows"]}
    assert {"padded crop and flip", "RandAugment, 2 operations", "cutout of 16", "mixup", "CutMix"} < names
    for row in content["rows"]:
        assert f"| {row['augmentation']} | {row['kdzoo']:,.0f} | {row['torchvision']:,.0f} |" in said
        assert row["kdzoo"] > 0 < row["torchvision"]


@claim_of("bench_claims.py")
def its_claims_can_be_tried(place: Place) -> None:
    """They are of times, which a busy machine must not fail here."""
    names = place.run("-c", LIST_TESTS, "bench_claims").split()
    assert "test_five_hundred_runs_make_their_tables_in_two_seconds" in names
    assert "test_no_loss_costs_more_than_a_quarter_of_a_cnns_step" in names


@claim_of("bench_losses.py")
def it_times_the_networks_and_every_method(place: Place) -> None:
    """What it times is run by tests/zoo/test_costs.py."""
    names = place.run("-c", LIST_TESTS, "bench_losses").split()
    assert names == ["test_networks", *(f"test_loss[{name}]" for name in REGISTRY.names())]


@claim_of("bench_speed.py")
def it_times_a_side_of_speed_py(place: Place) -> None:
    random = np.random.default_rng(0)
    (place.folder / "cifar100").mkdir()
    for part in ("train", "test"):
        images = random.integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
        np.savez(place.folder / "cifar100" / f"{part}.npz", images=images, labels=np.arange(100))
    # with pytest's own folders below this one: where others' tests have left theirs it would clean up
    words = ("-q", "-p", "no:cacheprovider", "--basetemp", "pytest", "--dist", "no", "-k", "test_side and teacher")
    environment = {"KDZOO_DATA": str(place.folder)}
    said = place.run("-m", "pytest", *words, BENCHMARKS / "bench_speed.py", environment=environment)
    assert "1 passed" in said
    assert re.search(r"^test_side\[teacher\] +\d+\.\d+", said, re.MULTILINE), "the table of pytest-benchmark"


@claim_of("budget.py")
def it_replays_three_rules_on_every_grid(place: Place) -> None:
    lines = place.run(BENCHMARKS / "budget.py", "--results", ROOT / "results", "--draws", 1).splitlines()
    grids = [line for line in lines if re.match(r"\| zoo(_digits)?, seed [\d, ]+: \d+ settings \| whole grid \|", line)]
    assert len({line.split(",")[0] for line in grids}) == 2
    assert all(line.split(" | ")[2] == "+0.00" and line.endswith(" 100 % |") for line in grids)
    assert sum(line.startswith("| | halving (") for line in lines) == len(grids)
    assert sum(line.startswith("| | random part |") for line in lines) == 2 * len(grids)


@claim_of("cache_mixes.py")
def it_measures_every_mix_twice(place: Place) -> None:
    said = place.run(BENCHMARKS / "cache_mixes.py", "--images", 16, "--epochs", 1, "--output", "mixes.json")
    content = place.read("mixes.json")
    assert content["images"] == 16
    mixes = {row["mix"]: row for row in content["rows"]}
    assert mixes.keys() == set(re.findall(r"^\| ([\w, ]+) \| \d+\.\d ms", said, re.MULTILINE))
    assert all(row["first_ms"] > 0 < row["warm_ms"] for row in mixes.values())
    assert mixes["at, stages cached"]["disk_mb"] > mixes["hinton"]["disk_mb"] > 0
    assert "disk_mb" not in mixes["at, live teacher"]


@claim_of("compiled.py")
def it_writes_a_record_for_each_side(place: Place) -> None:
    """Without torch.compile's compiling, which takes 12 seconds of processor time; tests/test_compiled.py compiles students."""
    words = ("--networks", "mlp_3072_8", "--batch", 2, "--rounds", 1, "--out", "out")
    said = place.run(BENCHMARKS / "compiled.py", *words, environment={"TORCHDYNAMO_DISABLE": "1"})
    cells = place.read("out/compiled-cpu.json")["cells"]
    assert [(cell["network"], cell["batch"], cell["side"]) for cell in cells] == [("mlp_3072_8", 2, side) for side in ("eager", "compiled")]
    assert all(f"mlp_3072_8 {cell['side']}: {1e3 * cell['step_seconds']:.1f} ms a step" in said for cell in cells)


@claim_of("cpu_targets.py")
def it_sets_each_target_beside_what_was_found(place: Place) -> None:
    said = place.run(BENCHMARKS / "cpu_targets.py", "--quick", "--output", "targets.json")
    content = place.read("targets.json")
    seconds, found = content["step_seconds"], {one["target"]["name"]: one["found"] for one in content["targets"]}
    assert found["a run of a warm sweep of nine logit methods"] == pytest.approx(seconds["logits"] / 9 / seconds["student"])
    assert len(found) == 5
    assert all(f"| {name} | " in said for name in found)


@claim_of("doses.py")
def it_measures_the_doses_of_published_weights_and_says_what_has_none(place: Place) -> None:
    none = next(name for name in REGISTRY.names_for_images() if REGISTRY.get(name).card.no_dose)
    words = ("--methods", f"at,hinton,{none}", "--limit", 400, "--epochs", 2, "--set", "teacher_recipe.epochs=5", "--out", "doses.md")
    said = place.run(BENCHMARKS / "doses.py", *words)
    page, ratios = (place.folder / "doses.md").read_text(), {one["method"]: one["ratio"] for one in json.loads(_text(place, "doses.json"))}
    assert page in said
    assert ratios.keys() == {"at", "hinton"}
    assert f"| at | features | 1 CE + 1000 D | {1000 * ratios['at']:.2g} |" in page
    assert f"| hinton | logits | 0.1 CE + 0.9 D | {9 * ratios['hinton']:.2g} |" in page
    assert f"- {none}: {REGISTRY.get(none).card.no_dose}" in page


@claim_of("error_rates.py")
def it_writes_the_rates_of_every_kind_of_bench(place: Place) -> None:
    said = place.run(BENCHMARKS / "error_rates.py", "--benches", 20, "--write", "out")
    content, page = place.read("out/error_rates.json"), _text(place, "out/error_rates.md")
    assert page in said
    assert "20 simulated benches a line" in page
    assert {(line["n"], line["rows"]) for line in content["results"]} == {(n, rows) for n in (3, 5) for rows in (2, 3, 11)}
    assert {line["control_seeds"] for line in content["control_seeds"]} == {5, 10, 20}


@claim_of("estimates.py")
def it_sets_both_estimates_beside_the_truth(place: Place) -> None:
    said = place.run(BENCHMARKS / "estimates.py", "--quick")
    found = re.findall(r"digits +from the (probe|record) *: estimate +([\d.]+) s, truth +([\d.]+) s, ratio ([\d.]+)\n", said)
    assert [source for source, *_ in found] == ["probe", "record"]
    for _, estimate, truth, ratio in found:
        assert float(estimate) > 0 < float(truth)
        assert (float(estimate) - 0.06) / (float(truth) + 0.06) < float(ratio) < (float(estimate) + 0.06) / (float(truth) - 0.06)


@claim_of("freeze_edition.py")
def it_writes_the_tables_of_a_bench_and_every_methods_version(place: Place) -> None:
    place.run(BENCHMARKS / "freeze_edition.py", ROOT / "results" / "digits", "--write", "edition.yaml")
    edition = Edition.model_validate(yaml.safe_load(_text(place, "edition.yaml")))
    assert [table.pairs for table in edition.tables] == [("digits_teacher/digits_student",)]
    assert set(edition.methods) == set(REGISTRY.own_names())


@claim_of("fsdd_levels.py")
def it_registers_the_maps_rounded_to_levels(place: Place) -> None:
    record(place.folder, takes=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDZOO_DATA", str(place.folder))
        runpy.run_path(str(BENCHMARKS / "fsdd_levels.py"))
        maps, levels = (load(name, root=None).test for name in ("fsdd", "fsdd_levels"))
    assert levels.images.dtype.is_floating_point is False
    assert sorted(image.round().byte().numpy().tobytes() for image in maps.images) == sorted(
        image.numpy().tobytes() for image in levels.images
    )


@claim_of("launchers.py")
def it_trains_the_bench_by_a_launcher_and_prints_a_digest_of_all_weights(place: Place) -> None:
    """What starts no cluster; these are started by the tests of the launchers."""
    said = place.run(BENCHMARKS / "launchers.py", "--launchers", "local")
    assert re.search(r"^\| `local` \| 4 \| \d+ \| `[0-9a-f]{16}` \| 0\.\d{6} \|$", said, re.MULTILINE)


@claim_of("losses.py")
def it_writes_what_each_loss_costs_and_why_others_have_no_row(place: Place) -> None:
    words = ("--methods", "hinton,deit_hard", "--pairs", "resnet14/resnet8", "--rounds", 1, "--write", "out")
    said = place.run(BENCHMARKS / "losses.py", *words)
    (found,) = place.read("out/losses.json")["results"]
    assert _text(place, "out/losses.md") in said
    assert [row["method"] for row in found["rows"]] == ["hinton"]
    assert found["refused"] == {"deit_hard": "reads a distillation token"}
    assert 0 < found["rows"][0]["milliseconds"] < found["step_milliseconds"]


@claim_of("many_runs.py")
def it_measures_every_command_on_a_bench_of_so_many_runs(place: Place) -> None:
    verbs = ("plan", "resume", "status", "leaderboard")
    said = place.run(BENCHMARKS / "many_runs.py", "--runs", 100, "--folder", "kept", "--verbs", ",".join(verbs))
    assert said.startswith("100 runs written in ")
    assert tuple(re.findall(r"^\| (\w+) \| \d+\.\d \| [\d,]+ \|$", said, re.MULTILINE)) == verbs
    assert sum(1 for _ in (place.folder / "kept/many/runs").glob("*/result.json")) == 100


@claim_of("overhead.py")
def it_writes_the_share_that_is_neither_step_nor_evaluation(place: Place) -> None:
    said = place.run(BENCHMARKS / "overhead.py", "--data", "digits", "--images", 64, "--seconds", 0, "--out", "out")
    found = place.read("out/overhead.json")
    assert (found["images"], found["epochs"]) == (64, 1)
    assert 0 < found["work_seconds"] < found["seconds"]
    assert found["overhead_share"] == pytest.approx(1 - found["work_seconds"] / found["seconds"])
    assert f"{found['overhead_share']:.2%} were neither" in said


@claim_of("preflight.py")
def it_builds_two_settings_of_every_method_that_a_pair_can_serve(place: Place) -> None:
    said = place.run(BENCHMARKS / "preflight.py", "--data", "digits", "--pair", "resnet14/resnet8")
    found = re.fullmatch(r"(\d+) objectives: plan \d+\.\d\d s and preflight \d+\.\d\d s, together \d+\.\d\d s of processor time\n", said)
    assert found is not None, said
    methods = set(REGISTRY.names_for_images()) - {"deit_hard", "deit_soft"}  # which read a distillation token
    assert len(methods) < int(found[1]) <= 2 * len(methods) + 1  # the student alone beside them; some methods have one setting


@claim_of("reference_points.py")
def it_writes_the_settings_with_five_seeds_or_more(place: Place) -> None:
    place.run(BENCHMARKS / "tables.py", "--runs", 90, "--folder", "bench")
    said = place.run(BENCHMARKS / "reference_points.py", "bench", "--command", "kdzoo bench", "--write", "points.json")
    points = read_points(place.folder / "points.json").values()
    assert {point.method for point in points} == {"none", "at", "hinton"}
    assert [len(point.values["test"]) for point in points] == [30] * 3
    assert len(re.findall(r": \d+\.\d\d ± \d+\.\d\d of 30$", said, re.MULTILINE)) == 3


@claim_of("streaming.py")
def it_times_every_way_to_read_a_folder(place: Place) -> None:
    said = place.run(BENCHMARKS / "streaming.py", "--files", 12, "--rounds", 1, "--write", "out")
    content = place.read("out/streaming.json")
    assert content["files"] == 12
    kinds = {row["loader"].split(",")[0] for row in content["rows"]}
    assert kinds == {"resident", "streamed", "DataLoader"}
    assert all(row["loader"] in said and row["images_a_second"] > 0 for row in content["rows"])


@claim_of("tables.py")
def it_prints_the_digest_of_the_three_tables(place: Place) -> None:
    said = place.run(BENCHMARKS / "tables.py", "--runs", 90, "--folder", "bench")
    content = b"".join((place.folder / "bench" / name).read_bytes() for name in ("runs.csv", "leaderboard.csv", "leaderboard.md"))
    assert re.fullmatch(rf"90 runs: \d+\.\d\d s of processor time; tables {hashlib.sha256(content).hexdigest()[:16]}\n", said)


@claim_of("trusted_row.py")
def it_prints_the_seeds_and_hours_of_every_row_but_the_controls(place: Place) -> None:
    rows = place.run(BENCHMARKS / "trusted_row.py", ROOT / "results" / "digits").splitlines()[2:]
    assert re.fullmatch(r"\| digits \| at(?: \| \d+){3} \| \d+\.\d \| \d+\.\d \|", rows[0])
    assert [row.split(" | ")[1] for row in rows[1:]] == ["median of 1 rows"]


@claim_of("verify_rows.py")
def it_draws_one_of_each_twenty_runs_and_says_what_became_of_them(place: Place) -> None:
    shutil.copytree(ROOT / "results" / "digits", place.folder / "results" / "digits")
    finished = sum(1 for _ in (place.folder / "results/digits/runs").glob("*/result.json"))
    words = (BENCHMARKS / "verify_rows.py", "--results", "results", "--seed", 7)
    listed = re.findall(r"^digits (\S+) \d+ s$", place.run(*words, "--list"), re.MULTILINE)
    assert len(listed) in (finished // 20, -(-finished // 20))
    said = place.run(*words, "--bench", "another", "--write")  # trains nothing
    assert f"{len(listed)} of {finished} finished runs, one of each 20, were drawn by the seed 7" in said
    assert f"| digits | {finished} | {len(listed)} | 0 | 0 | 0 | 0 | {len(listed)} |" in said
    assert said.strip() in _text(place, "results/verified.md")


def _text(place: Place, name: str) -> str:
    return (place.folder / name).read_text()


@pytest.mark.parametrize("script", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CLAIMS])
def test_a_script_runs_and_says_what_it_promises(script: str, place: Path) -> None:
    CLAIMS[script](Place(place))


def test_every_script_of_the_table_is_run_here_or_has_a_test_of_its_own() -> None:
    assert not CLAIMS.keys() & TESTED_ELSEWHERE.keys()
    assert sorted({*CLAIMS, *TESTED_ELSEWHERE}) == TABLE
    for script, test in TESTED_ELSEWHERE.items():
        assert Path(script).stem in (ROOT / "tests" / test).read_text(), f"{test} does not test {script}"


def test_every_script_stands_in_the_table() -> None:
    scripts = {file.name for file in BENCHMARKS.glob("*.py") if '__name__ == "__main__"' in file.read_text()}
    assert scripts - PARTS <= set(TABLE)


@pytest.mark.parametrize("by", ["bits", "spread", None])
def test_rows_that_disagree_have_one_column_however_that_was_found(by: str | None) -> None:
    sys.path.insert(0, str(BENCHMARKS))
    import verify_rows

    disagreeing = VerifiedRun(id="at-0123456789ab", result="", verdict="disagrees", by=by, text="")  # type: ignore[arg-type]
    assert verify_rows.outcome(disagreeing) == "disagrees"
    assert verify_rows.outcome(disagreeing) in verify_rows.COLUMNS
