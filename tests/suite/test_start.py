"""What a bench says before torch is loaded, what its folder keeps of how it was made, and when it knows that nothing is left."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from kdzoo.cli.output import announce_if_slow
from kdzoo.errors import InputError
from kdzoo.files import CONFIGS
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.first_look import missing_files, refuse_early
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.outline import outline
from kdzoo.suite.plan.recipe_files import recipes
from kdzoo.suite.plan.starts import Start, is_complete, keep_start, read_starts
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.plan.yaml_files import read_yaml
from kdzoo.suite.run.finished import finished_runs, keep_finished, stamp

SMALL = {"data": "digits", "pairs": "digits", "recipe": "digits"}


def words(config: BenchConfig) -> dict[str, str]:
    found = outline(config)
    assert found is not None
    return dict(found.lines())


# --- the first lines


def test_the_default_bench_is_told_in_four_lines():
    told = words(bench_config({}, None))
    settings = "student alone, 3 settings of hinton, 3 settings of at"
    assert told["bench"] == "digits: at most 21 runs, results in results/digits"
    assert told["methods"] == f"{settings}; seeds 0, 1, 2"
    assert told["networks"] == "digits_student taught by digits_teacher, on digits"
    assert told["recipe"] == "digits, 20 epochs a run"


@pytest.mark.parametrize(
    "options",
    [
        {"methods": "hinton,at+hinton", "seeds": "5,7", "temperatures": "1,2"},
        {"methods": "crd", "control_seeds": 5, "weights": "0.3,1"},
        {"pairs": "digits,digits_teacher/resnet8", "methods": "rkd", "seeds": 1},
        read_yaml(CONFIGS / "benches" / "zoo_digits.yaml"),
    ],
    ids=["sums", "control seeds", "two pairs", "zoo"],
)
def test_the_runs_that_are_told_first_are_those_of_the_plan(options, tmp_path):
    config = bench_config({**SMALL, **options, "results": str(tmp_path)}, None)
    found = outline(config)
    assert found is not None
    assert found.exact
    assert found.runs == len(plan(config).students)


@pytest.mark.parametrize(
    "options",
    [
        {"methods": "hinton,at", "alphas": "0,0.5"},
        {"methods": "hinton,at", "tune": 4},
        {"methods": "at+hinton,hinton+at"},
        {"methods": "hinton,0.1*ce+0.9*hinton"},
        {"methods": "at", "grid": {"at.power": "2,2"}},
    ],
)
def test_where_settings_may_be_one_run_the_number_is_the_highest_it_can_be(options, tmp_path):
    config = bench_config({**SMALL, **options, "results": str(tmp_path)}, None)
    found = outline(config)
    assert found is not None
    assert not found.exact
    assert found.runs is not None
    assert found.runs >= len(plan(config).students)
    assert ": at most " in words(config)["bench"]


def test_many_methods_and_seeds_are_told_by_their_number():
    zoo = read_yaml(CONFIGS / "benches" / "zoo_digits.yaml")
    told = words(bench_config({**zoo, "seeds": 10}, None))
    assert told["methods"] == f"student alone and {len(zoo['methods'])} methods, 1 setting each; 10 seeds"
    told = words(bench_config({**SMALL, "methods": "hinton", "seeds": "4,", "epochs": 1, "refit": True}, None))
    assert told["bench"] == "bench: 2 runs, results in results/bench"
    assert told["methods"] == "student alone, hinton; seed 4"
    assert told["recipe"] == "digits, 1 epoch a run"
    assert told["refit"] == "then the chosen settings on all training images, with fresh seeds"


def test_what_only_a_plugin_knows_is_counted_once_it_is_loaded():
    told = words(bench_config({**SMALL, "methods": "hinton,my_loss", "plugin": "place/my_loss.py"}, None))
    assert told["bench"] == "bench: runs are counted once my_loss.py is loaded, results in results/bench"
    assert told["methods"] == "student alone, hinton, my_loss; seeds 0, 1, 2"


def test_epochs_that_depend_on_the_number_of_images_are_a_least(place):
    """transfer16 trains for 10 epochs and for 2,000 steps at least: 500 images are 8 batches of 64 or less, 5,000 are 79."""
    few = outline(bench_config({**SMALL, "recipe": "transfer16"}, None))
    assert few is not None
    assert dict(few.lines())["recipe"] == "transfer16, at least 10 epochs a run"
    assert [few.epochs(), few.epochs(500), few.epochs(5000), few.epochs(50000)] == [10, 250, 26, 10]
    asked = outline(bench_config({**SMALL, "recipe": "transfer16", "epochs": 3}, None))
    assert asked is not None
    assert dict(asked.lines())["recipe"] == "transfer16, 3 epochs a run"
    assert asked.epochs(500) == 3


@pytest.mark.parametrize("options", [{"methods": "hintn"}, {"pairs": "digit"}, {"recipe": "digit"}, {"set": {"recipe.epochs": "many"}}])
def test_bad_input_is_left_to_the_plan_which_says_all_of_it(options):
    assert outline(bench_config({**SMALL, **options}, None)) is None


WITHOUT_TORCH = (
    "import sys; sys.modules['torch'] = None; from kdzoo.cli.app import status_of; sys.exit(status_of(sys.argv[1:], debug=False))"
)
"""a command where importing torch is an error"""


def test_the_first_lines_need_no_torch(place):
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, "bench"], capture_output=True, text=True, check=False)
    assert [line.partition(" ")[0] for line in done.stdout.splitlines()] == ["bench", "methods", "networks", "recipe"]
    assert "import of torch halted" in done.stderr, "what follows does need it"


# --- what is missing


MISSING = {
    "a folder": ({"data": "folder:gone"}, "data: folder:gone: no such folder"),
    "texts": ({"data": "text:gone.csv", "teacher": "resnet56", "student": "resnet20"}, "data: gone.csv: no such file; expected a CSV"),
    "weights": ({"teacher": "resnet56:gone.pth", "student": "resnet20"}, "network 'resnet56:gone.pth': no such file: gone.pth"),
    "a saved teacher": ({"teacher": "saved:gone.npz", "student": "resnet20"}, "network 'saved:gone.npz': no such file: gone.npz"),
    "a network of texts": ({"teacher": "resnet56", "student": "hf:gone:random"}, "network 'hf:gone:random': no such folder: gone"),
    "a plugin": ({"plugin": "gone.py"}, "plugin: no such file: gone.py"),
}


@pytest.mark.parametrize(("options", "words"), MISSING.values(), ids=MISSING)
def test_what_is_missing_is_told_before_torch_is_loaded(place, options, words):
    command = ["bench", *(part for key, value in options.items() for part in (f"--{key}", value)), "--alphas", "2"]
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"kdzoo: {words}" in done.stderr
    assert ("alphas: expected numbers in [0, 1]" in done.stderr) == ("plugin" not in options), (
        "beside all else that is wrong with the options"
    )


@pytest.mark.parametrize("options", [options for what, (options, _) in MISSING.items() if what != "a plugin"])
def test_the_plan_says_the_same_of_what_is_missing(place, options):
    config = bench_config({**SMALL, "pairs": () if "teacher" in options else "digits", **options}, None)
    with pytest.raises(InputError) as early:
        refuse_early(config)
    with pytest.raises(InputError) as planned:
        plan(config)
    assert set(early.value.problems) <= set(planned.value.problems)


@pytest.mark.parametrize(
    "words", [["distill", "gone", "--teacher", "resnet50", "--time", "2h"], ["train", "resnet56", "--data", "folder:gone"]]
)
def test_commands_for_one_network_say_it_before_torch_is_loaded_too(place, words):
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "kdzoo: data: folder:gone: no such folder\n")


@pytest.mark.parametrize(
    "options",
    [
        {"methods": ["hintn", "rkdd"]},
        {"alphas": [2], "temperatures": [0]},
        {"set": {"recipe.epochs": -3}},
        {"set": {"recipe.epoch": 3}, "pairs": ["digit"]},
        {"grid": {"crd.tau": [1]}, "recipe": "digts"},
        {"pairs": (), "teacher": "digits_teacher"},
        {"pairs": ()},
    ],
)
def test_what_is_refused_early_the_plan_refuses_too_in_the_same_words(place, options):
    config = BenchConfig.model_validate({**SMALL, "pairs": ["digits"], "seeds": [0], **options})
    problems = []
    for refuse in (refuse_early, plan):
        with pytest.raises(InputError) as told:
            refuse(config)
        problems.append(set(told.value.problems))
    assert problems[0] <= problems[1]


def test_a_time_that_is_none_is_told_beside_a_folder_that_is_missing(place):
    words = ["distill", "gone", "--teacher", "resnet50", "--time", "2x"]
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "kdzoo: time: expected a time such as 45m, 2h or 1h30m, got '2x'",
        "kdzoo: data: folder:gone: no such folder",
    ]


def test_a_folder_of_images_without_labels_that_is_missing_is_told_in_the_words_of_the_plan(place):
    config = bench_config({**SMALL, "transfer_data": "folder:gone"}, None)
    problems = []
    for refuse in (refuse_early, plan):
        with pytest.raises(InputError) as told:
            refuse(config)
        problems.append(told.value.problems)
    assert problems[0] == problems[1] == ("transfer_data: folder:gone: no such folder",)


@pytest.mark.parametrize(
    ("words", "faults"),
    [
        (["--methods", "hintn,rkdd"], ["methods: unknown 'hintn'; did you mean 'hinton'?", "methods: unknown 'rkdd'"]),
        (
            ["--alphas", "2", "--temperatures", "0"],
            ["alphas: expected numbers in [0, 1], got 2", "hinton.temperature: expected a number > 0"],
        ),
        (["--set", "recipe.epoch=3", "--pairs", "digit"], ["did you mean 'recipe.epochs'?", "pairs: unknown 'digit'"]),
        (["--set", "recipe.epochs=-3"], ["recipe.epochs: expected a number > 0, got -3"]),
        (["--grid", "crd.tau=1", "--recipe", "digts"], ["grid.crd.tau: no method of this bench", "did you mean 'digits'?"]),
    ],
)
def test_what_options_alone_tell_to_be_wrong_is_told_before_torch_is_loaded(place, words, faults):
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, "bench", *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert all(fault in done.stderr for fault in faults), done.stderr
    assert all(line.startswith("kdzoo: ") for line in done.stderr.splitlines())


# --- what is announced, and what takes a while


LENIENT = {
    "rates by network": {"lr_for": {"digits_student": 0.1, "digits_teacher": 0.1}, "without": ("lr",)},
    "keys that are unset": {"recipe": {"schedule": None, "momentum": None}, "without": ()},
}


@pytest.mark.parametrize("change", LENIENT.values(), ids=LENIENT)
def test_a_recipe_that_the_plan_accepts_is_not_refused_early(place, change):
    content = read_yaml(CONFIGS / "recipes/digits.yaml")
    for key in change["without"]:
        del content["recipe"][key]
    content["recipe"] |= change.get("recipe", {})
    content |= {"lr_for": change["lr_for"]} if "lr_for" in change else {}
    Path("mine.yaml").write_text(yaml.safe_dump(content))
    config = bench_config({**SMALL, "recipe": "mine.yaml"}, None)
    refuse_early(config)
    assert plan(config).students


def test_a_home_folder_and_a_name_that_is_too_long_are_paths_like_others(place, monkeypatch):
    monkeypatch.setenv("HOME", str(place))
    (place / "rev:x").mkdir()
    (place / "rev:x/w.pth").touch()
    assert missing_files("digits", ["~/rev:x/w.pth", "hf:~", "resnet56:~/rev:x/w.pth"]) == []
    (problem,) = missing_files("digits", [f"resnet56:{'a' * 300}.pth"])
    assert "no such file" in problem


def test_a_bench_that_only_its_plan_refuses_prints_nothing_and_leaves_nothing(place, kdzoo):
    said = kdzoo("bench", "--methods", "patientkd", "--epochs", 1, "--seeds", 1)
    assert (said.status, said.out) == (2, "")
    assert not Path("results").exists()


def test_what_takes_long_is_told_meanwhile_and_what_does_not_is_not(capsys):
    with announce_if_slow("reading", seconds=0.01):
        time.sleep(0.3)
        told = capsys.readouterr()
    assert (told.out, told.err) == ("", "kdzoo: reading\n")
    with announce_if_slow("reading", seconds=0.3):
        pass
    time.sleep(0.4)
    assert capsys.readouterr().err == ""


# --- the default bench by other words, and recipes


@pytest.mark.parametrize("options", [{"data": "digits"}, {"pairs": "digits"}, {"pairs": ["digits"], "data": "digits"}])
def test_digits_by_name_is_the_default_bench(options):
    assert bench_config(options, None) == bench_config({}, None)
    assert bench_config({**options, "alphas": "0.3"}, None) == bench_config({"alphas": "0.3"}, None)


def test_other_networks_on_the_digits_have_the_digits_recipe():
    config = bench_config({"teacher": "resnet20", "student": "resnet8"}, None)
    assert (config.data, config.recipe, config.temperatures) == ("digits", "digits", ())


def test_a_recipe_that_nobody_named_is_told(tmp_path):
    """The digits stand in for a data set of a user's, which has no usual recipe."""
    named = bench_config({**SMALL, "recipe": "smoke", "results": str(tmp_path)}, None)
    assert plan(named).notes == ()
    unnamed = BenchConfig.model_validate({"data": "digits", "pairs": "digits", "results": str(tmp_path)})
    (note,) = plan(unnamed).notes
    assert note.startswith("recipe: none was given, and digits has no default one: smoke is used")
    assert f"--recipe {', '.join(name for name in recipes() if name != 'smoke')}, or a file" in note


# --- how a bench was made


def test_a_folder_keeps_the_commands_that_made_it_and_the_present_plan_last(tmp_path):
    config = bench_config({"results": str(tmp_path), "seeds": 2}, None)
    first = Start.of("kdzoo bench --seeds 2", config, ["hinton-2", "at-1"])
    second = Start.of("kdzoo bench", bench_config({}, None), ["rkd-3"])
    for start in (first, second):
        assert keep_start(tmp_path / "digits", start) is None
    assert read_starts(tmp_path / "digits") == [first, second]
    assert first.runs == ("at-1", "hinton-2")
    assert bench_config(dict(first.config), None) == config, "the configuration can be used again"
    resumed = Start.of(first.command, config, ["at-1", "hinton-2", "hinton-4"])
    keep_start(tmp_path / "digits", resumed)
    assert read_starts(tmp_path / "digits") == [second, resumed]


def test_nothing_of_a_home_folder_is_kept_that_was_not_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keep_start(Path("results/digits"), Start.of("kdzoo bench", bench_config({}, None), ["at-1"]))
    text = (tmp_path / "results/digits/bench.json").read_text()
    assert str(tmp_path) not in text
    assert str(Path.home()) not in text


@pytest.mark.parametrize("text", ["{", "[]", '{"starts": [{}]}', '{"starts": [{"command": "", "config": {}, "runs": [1], "kdzoo": ""}]}'])
def test_a_damaged_file_of_starts_is_told_and_kept(tmp_path, text):
    (tmp_path / "bench.json").write_text(text)
    with pytest.raises(InputError, match=r"bench\.json: damaged"):
        read_starts(tmp_path)
    start = Start.of("kdzoo bench", BenchConfig(), ["at-1"])
    assert "it is kept as bench.json.damaged" in str(keep_start(tmp_path, start))
    assert (tmp_path / "bench.json.damaged").read_text() == text
    assert read_starts(tmp_path) == [start]


# --- nothing left to do


@pytest.fixture
def finished(place, monkeypatch):
    """A bench that says of itself that all of its runs are done, made from one file; their results are not looked into."""
    config = bench_config({"seeds": 1}, None)
    (place / "data.npz").write_text("images")
    for run_id in ("at-1", "hinton-2"):
        (place / "results/digits/runs" / run_id).mkdir(parents=True)
    monkeypatch.setattr("kdzoo.runs.store.RunFolder.result", lambda folder: json.loads((folder.path / "result.json").read_text()))
    for run_id in ("at-1", "hinton-2"):
        (place / "results/digits/runs" / run_id / "result.json").write_text("{}")
    keep_start(place / "results/digits", Start.of("kdzoo bench", config, ["at-1", "hinton-2"]))
    keep_finished(config, ["at-1", "hinton-2"], [place / "data.npz"])
    return config


def test_a_finished_bench_is_known_as_long_as_nothing_has_changed(finished):
    assert finished_runs(finished) == ("at-1", "hinton-2")
    assert is_complete(finished)
    assert finished_runs(finished.model_copy(update={"epochs": 3})) is None
    assert not is_complete(finished.model_copy(update={"epochs": 3}))


@pytest.mark.parametrize("change", ["data", "gone", "run", "more runs", "code", "record"])
def test_whatever_it_was_made_from_changes_the_plan_is_made_again(finished, place, monkeypatch, change):
    match change:
        case "data":
            (place / "data.npz").write_text("other images")
        case "gone":
            (place / "data.npz").unlink()
        case "run":
            (place / "results/digits/runs/at-1/result.json").unlink()
        case "more runs":
            (place / "results/digits/runs/rkd-3").mkdir()
        case "code":
            monkeypatch.setattr("kdzoo.suite.run.finished._code", lambda: "another version")
        case "record":
            (record,) = (place / "cache/finished").iterdir()
            record.write_text(record.read_text()[:-20])
    assert finished_runs(finished) is None


def test_a_folders_stamp_is_that_of_its_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/one.png").write_bytes(b"1")
    before = stamp(tmp_path)
    assert stamp(tmp_path) == before
    (tmp_path / "a/two.png").write_bytes(b"2")
    assert stamp(tmp_path) != before
    assert stamp(tmp_path / "nowhere") == "gone"


PLANNED = """
import sys
from kdzoo.cli.dry_run import print_plan
from kdzoo.suite.plan.layers import bench_config

print_plan(bench_config({"methods": "hinton,at"}, None), retry_failed=False)
print(sorted({"torch", "timm", "torchvision", "wandb"} & set(sys.modules)))
"""


def test_the_plan_of_a_finished_bench_of_kdzoos_own_networks_imports_no_slow_library_but_torch(place):
    shutil.copytree(Path(__file__).parents[2] / "results/digits", "results/digits")
    done = subprocess.run([sys.executable, "-c", PLANNED], capture_output=True, text=True, check=True)
    assert "21 done, 0 left" in done.stdout
    assert done.stdout.splitlines()[-1] == "['torch']"
