"""The command line: every verb answers, explains itself, and ends with the status it promises."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_words import bench_of
from PIL import Image
from processes import members_of_group, running_in, started
from warm_python import WarmPopen

import kdzoo as zoo
from kdzoo.cli.app import app
from kdzoo.errors import InputError
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.layers import bench_config
from kdzoo.version import VERSION

RESULTS = Path(__file__).resolve().parent.parent / "results"
QUICK = ("bench", "--threads", "1", "--jobs", "1", "--epochs", "1", "--seeds", "1", "--methods", "hinton", "--temperatures", "4")
VERBS = [
    ["bench"],
    ["status"],
    ["leaderboard"],
    ["compare"],
    ["report"],
    ["plot"],
    ["reproduce"],
    ["score"],
    ["advise"],
    ["verify"],
    ["merge"],
    ["submit"],
    ["distill"],
    ["methods"],
    ["explain"],
    ["pairs"],
    ["networks"],
    ["recipes"],
    ["data"],
    ["data", "list"],
    ["data", "show"],
    ["data", "prepare"],
    ["train"],
    ["teachers"],
    ["teachers", "save"],
    ["teachers", "check"],
    ["teachers", "join"],
    ["teachers", "save-by-names"],
    ["run"],
    ["work"],
    ["evaluate"],
    ["export"],
    ["check"],
]


def test_every_verb_is_in_the_list_above():
    groups = {name: set(command.commands) for name, command in app.commands.items() if hasattr(command, "commands")}
    assert set(app.commands) == {verb[0] for verb in VERBS}
    assert {(name, verb) for name, verbs in groups.items() for verb in verbs} == {tuple(verb) for verb in VERBS if len(verb) > 1}


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in (["data"], ["teachers"])], ids=" ".join)
def test_every_help_says_what_the_verb_does_and_gives_an_example(kdzoo, verb):
    said = kdzoo(*verb, "--help")
    assert said.status == 0
    assert "Example" in said.out
    assert re.search(rf"kdzoo {' '.join(verb)}\b", said.out.partition("Example")[2])


def test_help_fills_its_lines_and_names_defaults(kdzoo, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    said = kdzoo("bench", "--help").out
    assert max(len(line.rstrip()) for line in said.partition("Examples")[0].splitlines()) > 90
    assert "The student alone and plain Hinton KD are always among the runs." in " ".join(said.split())
    assert "[default: results]" in said
    assert "  kdzoo bench --methods crd --grid" in said


def test_no_bench_is_added_to_the_published_ones_unless_their_folder_is_named(kdzoo, place):
    (place / "results").mkdir()
    (place / "results" / ".published").touch()
    refused = kdzoo("bench", "--quick", "--dry-run")
    assert refused.status == 2
    assert "give --results my-results for your own runs, or --results results to add to those" in refused.err
    assert (RESULTS / ".published").is_file(), "this checkout's own are marked"
    with pytest.raises(InputError, match="holds the benches that kdzoo publishes"):
        zoo.bench(quick=True)
    assert kdzoo("bench", "--quick", "--dry-run", "--results", "results").status == 0
    (place / "own.yaml").write_text("results: results\n")
    assert kdzoo("bench", "--quick", "--dry-run", "--config", "own.yaml").status == 0


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in (["data"], ["teachers"])], ids=" ".join)
def test_usage_has_no_stray_brace(kdzoo, verb):
    assert not set("{}") & set(kdzoo(*verb, "--help").out.splitlines()[1])


def test_help_names_every_verb(kdzoo):
    said = kdzoo("--help")
    assert said.status == 0
    assert all(verb[0] in said.out for verb in VERBS)


def test_python_dash_m_is_the_same_command():
    run = subprocess.run([sys.executable, "-m", "kdzoo", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == f"kdzoo {VERSION}"


def test_version(kdzoo):
    assert kdzoo("--version").out.strip() == f"kdzoo {VERSION}"


def test_every_option_of_a_bench_is_a_key_of_its_configuration_and_the_other_way_round(kdzoo):
    import inspect

    from kdzoo.cli.bench import bench

    not_keys = {"ctx", "quick", "small_stem", "config", "retry_failed", "dry_run", "notify"}
    options = {name for name in inspect.signature(bench).parameters if name not in not_keys}
    assert options == set(BenchConfig.model_fields)


WITHOUT_TORCH = (
    "import sys; sys.modules['torch'] = None; from kdzoo.cli.app import status_of; sys.exit(status_of(sys.argv[1:], debug=False))"
)
"""a command line where importing torch is an error"""

TABLES = {"numpy", "pandas", "scipy"}
HEAVY = {*TABLES, "torch", "timm", "wandb", "torchvision", "sklearn", "altair", "vl_convert", "jinja2"}
VERB_NAMES = {verb[0] for verb in VERBS}

NEW_PROCESSES = """
import json, os, sys
from kdzoo.cli.app import app, status_of

for words in json.loads(sys.argv[1]):
    read, write = os.pipe()
    if os.fork() == 0:
        sys.stdout = open(os.devnull, "w")
        status = status_of(words, debug=True) if words[1:] != ["DECLARE"] else bool(app.commands[words[0]].params is None)
        os.write(write, json.dumps([status, *sys.modules]).encode())
        os._exit(0)
    os.close(write)
    print(open(read).read())
    os.wait()
"""
"""a process for each command, which has imported nothing but the command line without its verbs"""


def imports_of(commands: list[list[str]], folder: Path) -> list[set[str]]:
    """The modules that each command has imported by its end, which has to be a good one."""
    words = [sys.executable, "-c", NEW_PROCESSES, json.dumps(commands)]
    said = subprocess.run(words, capture_output=True, text=True, check=True, cwd=folder)
    found = [json.loads(line) for line in said.stdout.splitlines()]
    assert [(command, status) for command, (status, *_) in zip(commands, found, strict=True)] == [(command, 0) for command in commands]
    return [set(modules) for _, *modules in found]


def verbs_among(modules: set[str]) -> set[str]:
    return {name for name in VERB_NAMES if f"kdzoo.cli.{name}" in modules}


BENCH = str(RESULTS / "digits")
LIGHT: dict[tuple[str, ...], set[str]] = {
    ("--version",): set(),
    ("--help",): set(),
    ("status",): set(),
    ("status", BENCH): set(),
    ("recipes",): set(),
    ("teachers",): set(),
    ("methods",): set(),
    ("explain", "at+hinton", "--alpha", "0.9"): set(),
    ("data",): set(),
    ("networks",): set(),
    ("pairs",): set(),
    ("reproduce",): set(),
    ("leaderboard", BENCH): TABLES,
    ("compare", BENCH, BENCH): TABLES,
}


def test_light_verbs_import_nothing_heavy(place):
    found = imports_of([list(words) for words in LIGHT], place)
    assert {words: modules & HEAVY for words, modules in zip(LIGHT, found, strict=True)} == LIGHT
    tables = [modules for words, modules in zip(LIGHT, found, strict=True) if LIGHT[words]]
    assert not any("scipy.stats" in modules for modules in tables)  # half a second, for what few benches need


def test_a_verb_imports_no_other_verb_and_declares_itself_without_anything_heavy(place):
    uses = {"explain": {"methods"}, "distill": {"export"}}
    names = sorted(VERB_NAMES)
    found = dict(zip(names, imports_of([[name, "DECLARE"] for name in names], place), strict=True))
    assert {name: verbs_among(modules) for name, modules in found.items()} == {name: {name} | uses.get(name, set()) for name in names}
    assert {name: modules & HEAVY for name, modules in found.items()} == {name: set() for name in names}
    (without,) = imports_of([["--version"]], place)
    assert verbs_among(without) == set()


def test_what_is_not_given_stays_at_the_default_bench():
    assert bench_of() == bench_config({}, None)


def test_options_become_the_configuration():
    config = bench_of(
        "--methods", "hinton,at+hinton", "--temperatures", "1,4", "--grid", "at.power=1,2", "--seeds", "5,7", "--no-refit", "-j", "3"
    )
    assert config.methods == ("hinton", "at+hinton")
    assert config.temperatures == (1, 4)
    assert config.grid == {"at.power": (1, 2)}
    assert config.seeds == (5, 7)
    assert config.refit is False
    assert config.jobs == 3


def test_a_small_stem_is_both_networks():
    assert bench_of("--small-stem", "--set", "recipe.batch_size=32").set == {
        **bench_of().set,
        "student.stem": "small",
        "teacher.stem": "small",
        "recipe.batch_size": 32,
    }


def test_the_command_line_wins_over_the_file(kdzoo, place):
    (place / "bench.yaml").write_text("methods: [at]\ntemperatures: [2, 8]\nname: filed\n")
    said = kdzoo("bench", "-c", "bench.yaml", "--name", "typed", "--temperatures", "4", "--seeds", "1", "--dry-run", "--threads", "1")
    assert said.status == 0
    assert "typed, in results/typed" in said.out
    assert "distinct runs 3: 0 done, 3 left" in said.out


@pytest.mark.parametrize(
    ("text", "words", "recipe", "changes"),
    [
        ("recipe: {name: smoke, epochs: 5}", (), "smoke", {"recipe.epochs": 5}),
        ("recipe: {epochs: 5, augment: {pad: 1}}", (), "digits", {"recipe.epochs": 5, "recipe.augment.pad": 1}),
        ("recipe: {epochs: 5}", ("--recipe", "smoke"), "smoke", {"recipe.epochs": 5}),
        ("recipe: {name: crd240, epochs: 5}", ("--recipe", "smoke"), "smoke", {}),
        (
            "recipe: {lr: 0.2}\nset: {recipe.batch_size: 32}",
            ("--set", "recipe.lr=0.3"),
            "digits",
            {"recipe.epochs": 20, "recipe.lr": 0.3, "recipe.batch_size": 32},  # 20 is the default bench's own
        ),
    ],
)
def test_a_recipe_of_a_yaml_file_may_be_a_mapping_of_its_keys(place, text, words, recipe, changes):
    """Over a named recipe, or over the one that the bench has; the command line wins over both."""
    (place / "bench.yaml").write_text(text)
    config = bench_of(*words, file=place / "bench.yaml")
    assert config.recipe == recipe
    assert config.set == changes


def test_the_keys_of_a_recipes_mapping_are_what_is_trained(kdzoo, place):
    (place / "bench.yaml").write_text("recipe: {epochs: 2, batch_size: 32}\nmethods: [hinton]\ntemperatures: [4]\nseeds: 1\nthreads: 1\n")
    said = kdzoo("bench", "-c", "bench.yaml", "--dry-run")
    assert said.status == 0, said.err
    assert "digits_teacher is trained first, for 2 epochs" in said.out


def test_one_seed_with_a_comma_is_that_seed(kdzoo, place):
    said = kdzoo("bench", "--seeds", "5,", "--methods", "hinton", "--temperatures", "4,", "--epochs", "1", "--threads", "1", "--dry-run")
    assert "distinct runs 2: 0 done, 2 left" in " ".join(said.out.split())
    refused = kdzoo("bench", "--seeds", "3", "--alphas", ",0.5", "--dry-run")
    assert refused.status == 2
    assert "alphas: expected values between commas, got ',0.5'" in refused.err


def test_a_dry_run_prints_the_plan_and_writes_nothing(kdzoo, place):
    """2 methods x 3 alphas x 2 seeds and the student alone twice; alpha 0 of both methods is the student alone."""
    said = kdzoo("bench", "--methods", "hinton,at", "--alphas", "0,0.5,0.9", "--seeds", "2", "--epochs", "1", "--threads", "1", "--dry-run")
    assert said.status == 0
    assert "grid points   14" in said.out
    assert "4 of them are duplicates: alpha = 0 or weight 0 is the student alone" in said.out
    assert "distinct runs 10: 0 done, 10 left" in said.out
    assert "digits_teacher is trained first, for 1 epoch (" in said.out
    told = [line.split(None, 1) for line in said.out.splitlines()]
    assert ["methods", "student alone"] in told
    assert ["at:", "alpha=0.5, alpha=0.9"] in told
    assert ["seeds", "0, 1"] in told
    assert ["recipe", "digits, 1 epoch a run"] in told
    assert ["networks", "digits_teacher/digits_student"] in told
    assert re.search(r"time +about \d", said.out)
    assert list(place.iterdir()) == []


def test_a_quick_bench_keeps_what_the_file_says(kdzoo, place):
    """Two seeds of the student alone and of the two settings of plain KD."""
    (place / "bench.yaml").write_text("name: filed\nseeds: 2\nepochs: 1\nthreads: 1\n")
    said = kdzoo("bench", "-c", "bench.yaml", "--quick", "--methods", "none", "--dry-run")
    assert "distinct runs 6: 0 done, 6 left" in said.out
    assert "digits, 1 epoch a run" in said.out


def test_explain_prints_the_formula_with_the_numbers_of_the_run(kdzoo):
    said = kdzoo("explain", "hinton", "--alpha", "0.75", "--temperature", "2")
    assert "0.25 * CE + 0.75 * 2^2" in said.out
    assert "student: logits; teacher: logits" in said.out
    assert "1503.02531" in said.out
    assert "7^2" in kdzoo("explain", "at+hinton", "--set", "hinton.temperature=7").out


def test_explain_lists_the_stages_that_meet_and_the_leftovers(kdzoo):
    said = kdzoo("explain", "at", "--teacher", "resnet32x4", "--student", "resnet8", "--image", "3x32x32")
    assert "student 64x8x8 (stage 2) is paired with teacher 256x8x8" in said.out
    assert "left over" in said.out


def test_explain_refuses_what_a_bench_would_refuse(kdzoo):
    assert "did you mean 'temperature'" in kdzoo("explain", "hinton", "--set", "temprature=2").err
    assert "alpha = 1 would never train the classifier" in kdzoo("explain", "crd", "--alpha", "1").err
    assert kdzoo("explain", "at", "--teacher", "resnet20").status == 2


def test_lists_come_as_csv_json_and_markdown(kdzoo):
    for verb in (["methods"], ["networks"], ["pairs"], ["recipes"], ["data", "list"], ["teachers"]):
        as_json = json.loads(kdzoo(*verb, "--format", "json").out)
        as_csv = list(csv.DictReader(io.StringIO(kdzoo(*verb, "--format", "csv").out)))
        assert len(as_json) == len(as_csv)
        assert kdzoo(*verb, "--format", "md").out.count("\n") == len(as_json) + 2
        assert json.loads(kdzoo(*verb, "--json").out) == as_json
    assert {"hinton", "at", "fitnet", "rkd", "crd", "logits"} <= {
        row["method"] for row in json.loads(kdzoo("methods", "--format", "json").out)
    }


def test_what_was_found_in_a_data_set_is_shown_with_its_classes(kdzoo, place):
    for label, shade in (("dark", 20), ("light", 200)):
        (place / "photos" / label).mkdir(parents=True)
        for number in range(10):
            pixels = np.full((9, 9), shade, dtype=np.uint8)
            pixels[number % 9, number // 9] = 0
            Image.fromarray(pixels).save(place / "photos" / label / f"{number}.png")
    (place / "photos" / "dark" / "notes.txt").write_text("no image")
    os.mkfifo(place / "photos" / "light" / "pipe.png")
    for verb in (["data"], ["data", "show"]):
        said = kdzoo(*verb, "folder:photos", "--format", "csv")
        assert said.status == 0, said.err
        assert list(csv.DictReader(io.StringIO(said.out))) == [{"class": name, "train": "8", "test": "2"} for name in ("dark", "light")]
        assert said.err.splitlines() == [
            "kdzoo: 20 images, 2 classes, 256x256 colour, from folder photos (20 .png)",
            "kdzoo: train 16, test 4 (a fifth, by content)",
            "kdzoo: skipped: 1 file of another kind (1 .txt), light/pipe.png (a FIFO)",
        ]
    assert "did you mean 'digits'" in kdzoo("data", "digitz").err
    shutil.copytree(place / "photos", place / "a folder" / ("with a long name " * 4), ignore=shutil.ignore_patterns("pipe.png"))
    folder = f"folder:a folder/{'with a long name ' * 4}"
    words = ["--pairs", "resnet20/resnet8", "--recipe", "digits", "--set", "recipe.augment.size=32"]
    planned = kdzoo("bench", "--data", folder, *words, "--dry-run")
    command = re.search(r"in full: kdzoo (data .*)$", planned.out, re.MULTILINE)
    assert command, planned
    again = kdzoo(*shlex.split(command[1]))
    assert (again.status, "20 images, 2 classes" in again.err) == (0, True), "the line that a bench prints is a command"


def test_networks_are_kdzoos_own_or_match_a_pattern(kdzoo):
    assert {"resnet20", "wrn_40_2", "cnn64"} <= set(kdzoo("networks").out.split())
    found = [row["network"] for row in json.loads(kdzoo("networks", "mobilenetv3_small*", "--json").out)]
    assert "mobilenetv3_small_100" in found
    assert all(name.startswith("mobilenetv3_small") for name in found)
    assert "did you mean 'resnet20'" in kdzoo("networks", "resnt20").err


GOOD = """
import kdzoo

@kdzoo.register("cli_good")
def cli_good(student, teacher, batch, *, power: float = 2.0):
    return (student.logits.double() - teacher.logits.detach().double()).abs().pow(power).mean()
"""
BAD = GOOD.replace("cli_good", "cli_bad").replace(".detach()", "")


def test_check_says_that_a_good_method_is_good(kdzoo, place):
    (place / "good.py").write_text(GOOD)
    said = kdzoo("check", "good.py")
    assert said.status == 0, said.out
    assert "cli_good" in said.out
    assert "all passed" in said.out


def test_check_says_what_is_wrong_and_how_to_mend_it(kdzoo, place):
    (place / "bad.py").write_text(BAD)
    said = kdzoo("check", "bad.py")
    assert said.status == 1
    assert "detach it" in said.out


def test_check_refuses_a_file_without_methods(kdzoo, place):
    (place / "empty.py").write_text("x = 1\n")
    said = kdzoo("check", "empty.py")
    assert said.status == 2
    assert "registers no method" in said.err


@pytest.mark.slow
@pytest.mark.usefixtures("train_here")
def test_from_an_empty_folder_to_a_leaderboard_and_back_to_every_run(kdzoo, place):
    """One bench, then every verb that looks at what it left."""
    done = kdzoo(*QUICK)
    assert done.status == 0, done.err
    assert "hinton" in done.out
    assert "Verdict: none, with one seed no difference can be told from chance" in " ".join(done.out.split())
    found = ["data: 1,797 images, 10 classes, 8x8 grey, from scikit-learn"]
    found += ["data: train 1,150, validation 288 (from train), test 359 (a fifth, by content)"]
    lines = done.out.splitlines()
    assert lines[0] == "bench         digits: 2 runs, results in results/digits"
    assert [line for line in lines if line.startswith("data: ")] == found == lines[4 : 4 + len(found)]
    assert lines[-2] == "leaderboard: results/digits/leaderboard.md, with leaderboard.csv and runs.csv beside it"
    assert lines[-1].startswith("next: ")
    recorded = [json.loads(file.read_text())["about"]["data"] for file in place.glob("results/digits/runs/*/run.json")]
    assert [(one["train"], one["validation"], one["test"], one["notes"]) for one in recorded] == [(1150, 288, 359, [])] * 2
    kept = {entry.name for entry in (place / "results/digits").iterdir()}
    assert kept == {"bench.json", "leaderboard.csv", "leaderboard.md", "runs", "runs.csv", ".bench.lock", ".tables.lock"}
    (made,) = json.loads((place / "results/digits/bench.json").read_text())["starts"]
    assert made["command"] == f"kdzoo {' '.join(QUICK)}"
    assert made["runs"] == sorted(path.name for path in place.glob("results/digits/runs/*"))
    assert made["config"]["methods"] == ["hinton"]
    again = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *QUICK], capture_output=True, text=True, check=False)
    assert again.returncode == 0, "where nothing is left to do not even torch is loaded, let alone a worker started"
    assert "nothing is left to do: all 2 runs are done" in again.stdout
    assert again.stdout.splitlines()[-2:] == lines[-2:]
    dry = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *QUICK, "--dry-run"], capture_output=True, text=True, check=False)
    assert (dry.returncode, dry.stdout.splitlines()) == (0, [*lines[:4], "nothing is left to do: all 2 runs are done"])

    status = json.loads(kdzoo("status", "digits", "--json").out)
    assert status["counts"] == {"running": 0, "failed": 0, "damaged": 0, "interrupted": 0, "paused": 0, "to do": 0, "done": 2}
    assert [(row["state"], row["method"]) for row in status["teachers"]] == [("done", "teacher")]
    assert "2 done" in kdzoo("status", "results/digits").out

    tables = {path.name: path.read_bytes() for path in place.glob("results/digits/[lr]*.*")}
    for path in place.glob("results/digits/[lr]*.*"):
        path.unlink()
    shown = kdzoo("leaderboard", "digits", "--format", "csv", "--sort", "test_top1", "--filter", "method != teacher")
    assert {path.name: path.read_bytes() for path in place.glob("results/digits/[lr]*.*")} == tables
    rows = list(csv.DictReader(io.StringIO(shown.out)))
    assert {row["method"] for row in rows} == {"hinton", "none"}
    assert [float(row["test_top1"]) for row in rows] == sorted((float(row["test_top1"]) for row in rows), reverse=True)
    for how in ("table", "md", "latex", "json"):
        assert "hinton" in kdzoo("leaderboard", "digits", "--format", how).out
    board = kdzoo("leaderboard", "digits", "--columns", "n,test top-1").out
    assert "Verdict: none, with one seed" in board
    assert "vs KD" not in board
    assert "did you mean 'test top-1'" in kdzoo("leaderboard", "digits", "--columns", "test top1").err
    assert "did you mean 'test_top1'" in kdzoo("leaderboard", "digits", "--sort", "test_top").err

    compared = kdzoo("compare", "digits", "results/digits/runs.csv", "--format", "json")
    assert compared.status == 0, compared.err
    assert {row["method"] for row in json.loads(compared.out)} == {"hinton", "none"}
    assert "hinton" in kdzoo("compare", "digits", "digits").out

    taught = json.loads(kdzoo("teachers", "--format", "json").out)
    assert [(row["network"], row["data"], row["state"]) for row in taught] == [("digits_teacher", "digits", "done")]

    run = next(place.glob("results/digits/runs/hinton-*"))
    evaluated = kdzoo("evaluate", run.name)
    assert evaluated.status == 0, evaluated
    assert "as recorded" in evaluated.out
    assert f"{run.name}, 359 test images\n" in evaluated.out

    before = json.loads((run / "result.json").read_text())
    (run / "result.json").unlink()
    (run / "student.safetensors").unlink()
    assert kdzoo("run", run / "run.json", "--threads", "1").status == 0
    assert json.loads((run / "result.json").read_text())["last"] == before["last"]


@pytest.mark.slow
@pytest.mark.usefixtures("train_here")
def test_hints_of_networks_with_one_stage_need_nothing_said(kdzoo, place):
    """Two ViTs, whose tokens are one map: the hint is at that."""
    random = np.random.default_rng(0)
    for label in ("dark", "light"):
        (place / "photos" / label).mkdir(parents=True)
        for number in range(10):
            pixels = random.integers(0, 128, (32, 32, 3)) + (127 if label == "light" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(place / "photos" / label / f"{number}.png")
    pair = ["--teacher", "test_vit2", "--student", "test_vit", "--data", f"folder:{place / 'photos'}", "--allow-chance-teacher"]
    pair += ["--set", "recipe.batch_size=8"]  # both see 160 pixels: a step of all images takes seconds
    said = kdzoo("bench", *pair, "--methods", "fitnet", "--epochs", "1", "--seeds", "1", "--jobs", "1", "--threads", "1", "--no-refit")
    assert said.status == 0, said
    assert next(place.glob("results/*/runs/fitnet-*/result.json"))


@pytest.mark.slow
@pytest.mark.usefixtures("train_here")
def test_a_teacher_trained_by_hand_is_the_one_that_a_bench_finds(kdzoo, place):
    trained = kdzoo("train", "digits_teacher", "--data", "digits", "--recipe", "digits", "--epochs", "1", "--threads", "1")
    assert trained.status == 0, trained.err
    (run_id,) = re.findall(r"--teacher (none-[0-9a-f]{12})", trained.out)
    plan = kdzoo(*QUICK, "--dry-run")
    assert "is trained first" not in plan.out
    by_id = kdzoo(*QUICK, "--teacher", run_id, "--student", "digits_student", "--data", "digits", "--recipe", "digits", "--dry-run")
    assert by_id.status == 0, by_id.err


FAILING = """
import kdzoo

@kdzoo.register("cli_failing", needs=kdzoo.Need.LOGITS)
def cli_failing(student, teacher, batch):
    if batch.clock.step == 2 and batch.clock.steps > 10:
        raise RuntimeError("a bug of the plugin")
    return (student.logits - teacher.logits.detach()).pow(2).mean()
"""


@pytest.mark.slow
@pytest.mark.usefixtures("train_here")
def test_a_failed_run_gives_status_1_and_is_kept_shown_and_retried_on_request(kdzoo, place):
    (place / "failing.py").write_text(FAILING)
    options = [*QUICK, "--methods", "hinton,cli_failing", "--plugin", "failing.py"]
    first = kdzoo(*options)
    assert first.status == 1
    assert "1 of 3 runs failed" in first.err
    assert "a bug of the plugin" in first.out
    status = json.loads(kdzoo("status", "digits", "--json").out)
    assert [row["reason"] for row in status["runs"] if row["state"] == "failed"] == ["RuntimeError: a bug of the plugin"]
    assert kdzoo(*options).status == 1
    (place / "failing.py").write_text(FAILING + "# the same method: a comment changes nothing\n")
    assert kdzoo(*options, "--retry-failed").status == 1
    assert kdzoo(*QUICK).status == 0


def plan_one_run(folder):
    """A folder that is a bench, of one run whose specification nobody reads."""
    (folder / "runs/hinton-0123456789ab").mkdir(parents=True)
    (folder / "runs/hinton-0123456789ab/run.json").write_text("{}")


def test_a_folder_with_a_folder_runs_is_no_bench_and_nothing_is_written_into_it(kdzoo, place):
    (place / "code/pack/runs").mkdir(parents=True)
    (place / "code/pack/runs/store.py").touch()
    plan_one_run(place / "code/my-results/digits")
    for words in (["leaderboard", "--results", "code"], ["report", "digits"]):
        refused = kdzoo(*words)
        assert (refused.status, refused.out) == (2, ""), words
        assert refused.err.rstrip().endswith("; for benches elsewhere use --results code/my-results"), words
    named = kdzoo("leaderboard", "pack", "--results", "code")
    assert named.status == 2
    assert "code/pack is a folder, but no bench (looked for bench.json or runs/*/run.json in it); looked in code" in named.err
    assert "bench: . is a folder, but no bench" in kdzoo("status", ".").err
    assert [path.name for path in (place / "code/pack").iterdir()] == ["runs"]
    assert kdzoo("status", "digits", "--results", "code/my-results").status == 0, "the hint can be followed"


def test_a_bench_in_place_of_a_run_is_told_with_one_of_its_runs(kdzoo, place):
    digits = Path(__file__).parents[1] / "results/digits"
    shutil.copytree(digits, place / "results/digits")
    for name in ("digits", "results/digits"):
        refused = kdzoo("export", name, "--format", "onnx", "-o", "exp")
        assert refused.status == 2
        assert f"run: {name} is a bench, not one of its runs; `kdzoo status results/digits --json` lists their ids" in refused.err
        example = refused.err.rpartition(", for example ")[2].strip()
        assert (place / example / "result.json").is_file()
    listed = json.loads(kdzoo("status", "results/digits", "--json").out)["runs"]
    assert example.rpartition("/")[2] in {row["id"] for row in listed}


def test_settings_that_nothing_can_choose_among_are_told_before_anything_is_trained(kdzoo, place):
    several = ["bench", "--data", "digits", "--val-fraction", "0", "--methods", "hinton", "--dry-run"]
    told = " ".join(kdzoo(*several, "--temperatures", "2,4").out.split())
    assert "no image is held out for validation, so that nothing can choose among 2 settings of hinton: each is a row of its own" in told
    assert "and there is no verdict about KD, which has several;" in told
    assert "no image is held out" not in kdzoo(*several, "--temperatures", "2").out
    assert "no image is held out" not in kdzoo(*several[:3], *several[5:], "--temperatures", "2,4").out


def test_a_bench_without_runs_has_no_tables(kdzoo, place):
    (place / "results/new").mkdir(parents=True)
    (place / "results/new/bench.json").write_text('{"starts": []}')
    refused = kdzoo("leaderboard", "new")
    assert (refused.status, refused.out) == (2, "")
    assert "results/new: no runs, so that there are no tables (looked for runs/*/run.json in it)" in refused.err
    assert [path.name for path in (place / "results/new").iterdir()] == ["bench.json"]


def test_a_bench_that_is_not_where_it_was_looked_for_is_offered(kdzoo, place):
    for name in ("mine", "other"):
        plan_one_run(place / "my-results" / name)
    plan_one_run(place / "cache/teachers")
    where = "looked in results; for benches elsewhere use --results my-results"
    assert f"unknown 'mine'; {where}" in kdzoo("leaderboard", "mine").err
    assert where in kdzoo("leaderboard").err
    assert kdzoo("status").out.strip() == f"no benches; {where}"
    assert json.loads(kdzoo("status", "--json").out) == []
    folder = kdzoo("status", "my-results").err
    assert "my-results is a folder of benches (mine, other): use --results my-results, or my-results/mine" in folder
    assert "name a bench; my-results has: mine, other" in kdzoo("leaderboard", "--results", "my-results").err
    assert "compare: name two or more benches; my-results has: mine, other" in kdzoo("compare", "--results", "my-results").err


def test_a_folder_is_offered_as_a_shell_takes_it_and_an_empty_name_is_none(kdzoo, place):
    folder = "bad place'\"<b>"
    (place / folder / "mine" / "runs" / "hinton-0123456789ab").mkdir(parents=True)
    (place / folder / "mine" / "runs" / "hinton-0123456789ab" / "run.json").touch()
    words = kdzoo("status", folder).err.strip().partition(": use ")[2]
    assert shlex.split(words) == ["--results", f"{folder},", "or", f"{folder}/mine"]
    assert shlex.split(kdzoo("leaderboard", "mine").err)[-2:] == ["--results", folder]
    for verb in (["report"], ["leaderboard"], ["plot", "--kind", "curves", "-o", "x.svg"]):
        assert kdzoo(*verb, "").err.startswith("kdzoo: bench: expected a name or a folder, got ''; looked in results; ")


def start(*words: str, popen: type[subprocess.Popen[Any]] = WarmPopen) -> subprocess.Popen[str]:
    return started([sys.executable, "-m", "kdzoo", *words], popen=popen)


def training(place: Path, process: subprocess.Popen[str]) -> None:
    """Wait until some student has finished an epoch."""
    while process.poll() is None and not any(path.stat().st_size for path in place.glob("results/*/runs/*/metrics.jsonl")):
        time.sleep(0.02)
    assert process.poll() is None


LONG = (*QUICK, "--epochs", "3000")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_while_training_ends_with_130_and_no_process_left(place, number):
    process = start(*LONG, "--set", "teacher_recipe.epochs=1")
    training(place, process)
    os.kill(process.pid, number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "run the same command to resume" in said
    assert "Traceback" not in said
    assert members_of_group(process.pid) == []
    assert list(place.glob("results/*/runs/*/checkpoint/state.pt"))


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.0, 0.5, 1.5, 4.0])
def test_a_signal_while_it_starts_ends_with_130_and_no_process_left(place, after):
    """So many seconds after its imports have begun: before that it is Python that starts, not kdzoo."""
    process = start(*LONG, popen=subprocess.Popen)
    while "pydantic_core" not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.005)
    time.sleep(after)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert members_of_group(process.pid) == []


SWALLOWS = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except BaseException:
    pass
"""


def test_an_interrupt_that_an_import_swallows_ends_the_command_before_anything_is_trained(place):
    (place / "swallows.py").write_text(SWALLOWS)
    process = start(*LONG, "--plugin", "swallows.py")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "interrupted; run the same command to resume" in said
    assert not list(place.glob("**/metrics.jsonl"))


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait(place):
    """The worker is stopped first, so that it cannot checkpoint: only killing it ends the bench."""
    process = start(*LONG, "--set", "teacher_recipe.epochs=1")
    training(place, process)
    workers = [pid for pid in running_in(process.pid) if pid != process.pid]
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=10)
    assert process.returncode == 130, said
    assert members_of_group(process.pid) == []


@pytest.mark.parametrize("how", ["table", "csv", "md", "latex", "json"])
def test_a_bench_without_any_finished_run_has_a_table_in_every_format(kdzoo, place, how):
    """As it stands after an early Ctrl-C: no run has a result, and none was measured."""
    for file in (RESULTS / "digits/runs").glob("*/run.json"):
        (place / "results/early/runs" / file.parent.name).mkdir(parents=True)
        shutil.copy(file, place / "results/early/runs" / file.parent.name)
    said = kdzoo("leaderboard", "early", "--format", how)
    assert said.status == 0, said.err
    assert "hinton" in said.out
