"""`kdzoo submit`: what a pull request needs, and what is refused."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from edited import edit
from pages import Page
from test_commands import commands
from test_leaderboard import objective, write
from test_merge import bench

from kdzoo.errors import InputError
from kdzoo.runs.predictions import Predictions, write_predictions
from kdzoo.runs.store import Store
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.starts import Start, keep_start, read_starts
from kdzoo.suite.proof.reference import points_of
from kdzoo.suite.proof.submit import _named, submit
from kdzoo.suite.report.bench import read_bench

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def whole(tmp_path):
    """A bench with predictions, a plugin and a folder of images of this machine."""
    folder = bench(tmp_path / "mine")
    plugin = tmp_path / "my_loss.py"
    plugin.write_text("LOSS = 1\n")
    config = bench_config({"plugin": [str(plugin)], "data": f"folder:{tmp_path}/photos", "pairs": "resnet20/resnet8"}, None)
    keep_start(folder, Start.of(f"kdzoo bench --plugin {plugin}", config, Store(folder).ids()))
    for record in read_bench(folder).records:
        n, right = 1000, round(1000 * record.headline("test"))
        scores = np.full((n, 10), -5.0, np.float32)
        scores[np.arange(n), np.where(np.arange(n) < right, 0, 1)] = -0.1
        test = Predictions(scores, np.zeros(n, np.int64), np.zeros((n, 16), np.uint8))
        val = Predictions(scores, np.where(np.arange(n) < round(1000 * (0.8 + record.run.seed / 1000)), 0, 1), np.zeros((n, 16), np.uint8))
        val = Predictions(np.repeat(scores[:1], n, 0), val.targets, val.keys)
        write_predictions(Store(folder).run(record.id).predictions, {"test": test, "val": val}, record.id)
    return folder


def test_what_is_packed_names_no_place_of_the_machine_and_gives_the_same_table(whole, tmp_path):
    packed = submit(whole, tmp_path / "out", author="A. Name", points=points_of(read_bench(whole).records))
    assert (packed.runs, packed.predictions) == (10, 2)
    assert {one.verdict for one in packed.controls} == {"agrees"}
    kept = sorted(path.parent.name for path in (tmp_path / "out").glob("runs/*/predictions.npz"))
    assert {name.partition("-")[0] for name in kept} == {"none", "hinton"}
    assert {read_bench(whole).only([name]).records[0].run.seed for name in kept} == {0}
    texts = [file.read_text() for file in (tmp_path / "out").rglob("*") if file.is_file() and file.suffix != ".npz"]
    assert not [text for text in texts if str(tmp_path) in text]
    assert (tmp_path / "out" / "plugins" / "my_loss.py").read_text() == "LOSS = 1\n"
    assert read_starts(tmp_path / "out")[0].config["plugin"] == ["my_loss.py"]
    assert json.loads((tmp_path / "out" / "submission.json").read_text())["author"] == "A. Name"
    assert (
        "kdzoo verify results/mine --sample 3 --plugin results/mine/plugins/my_loss.py" in (tmp_path / "out" / "SUBMISSION.md").read_text()
    )


def test_all_that_a_reviewer_would_refuse_is_refused_at_once(whole, tmp_path):
    points = points_of(read_bench(whole).records)
    store = Store(whole)
    gone, edited, *_ = [run_id for run_id in store.ids() if run_id.startswith("hinton")]
    shutil.rmtree(store.run(gone).path)
    edit(store.run(edited).path / "result.json", lambda result: result["train"].update(steps=76))
    waiting = write(whole, objective("at"), 0, val=0.8, test=0.8)
    (store.run(waiting.id).path / "result.json").unlink()
    for run_id in [run_id for run_id in store.ids() if run_id.startswith("none")]:
        place = store.run(run_id)
        edit(place.path / "result.json", lambda result: result["last"]["test"].update(top1=result["last"]["test"]["top1"] - 0.2))
        place.predictions.unlink()
    with pytest.raises(InputError) as refused:
        submit(whole, tmp_path / "out", author="A. Name", points=points)
    text = str(refused.value)
    for reason in (
        "1 run of the plan missing, such as " + gone,
        f"{edited}: train.steps: 76",
        f"1 run not over, such as {waiting.id}",
        "control student alone",
    ):
        assert reason in text
    assert not (tmp_path / "out").exists()


def test_a_bench_without_a_control_is_refused(whole, tmp_path):
    for run_id in [run_id for run_id in Store(whole).ids() if run_id.startswith("none")]:
        shutil.rmtree(Store(whole).run(run_id).path)
    with pytest.raises(InputError, match="the control student alone is missing"):
        submit(whole, tmp_path / "out", author="A. Name", points={})


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("folder:/home/me/photos", "folder:photos"),
        ("/data/x.pt", "x.pt"),
        ("kdzoo bench --plugin /a/b.py --pairs resnet56/resnet20", "kdzoo bench --plugin b.py --pairs resnet56/resnet20"),
        ("https://arxiv.org/abs/1503.02531", "https://arxiv.org/abs/1503.02531"),
        ("~/sets", "sets"),
        ("results/mine", "results/mine"),
    ],
)
def test_paths_come_to_their_last_part_and_nothing_else_does(text, plain):
    assert _named(text) == plain


def test_the_committed_default_bench_can_be_submitted(kdzoo, place):
    said = kdzoo("submit", ROOT / "results" / "digits", "--author", "A. Name", "--json")
    assert said.status == 0, said.err
    told = json.loads(said.out)
    assert (told["runs"], told["teachers"], told["predictions"]) == (21, 1, 3)
    assert {one["verdict"] for one in told["controls"]} == {"agrees"}
    assert (place / "submissions" / "digits" / "leaderboard.csv").read_bytes() == (
        ROOT / "results" / "digits" / "leaderboard.csv"
    ).read_bytes()


@pytest.mark.slow
def test_the_page_on_the_living_table_is_followed(place, kdzoo, train_here):
    """All commands of "living-table.md" in their order, with less training."""
    shutil.copytree(ROOT / "results" / "digits", place / "results" / "digits")
    blocks = Page((ROOT / "README.md").read_text()).blocks("python")
    (place / "my_loss.py").write_text(next(code for code in blocks if "# my_loss.py" in code))
    less = {"bench": ["--epochs", 2, "--limit", 300, "--seeds", 2, "--jobs", 1, "--threads", 1, "--allow-chance-teacher"]}
    less |= {"verify": ["--sample", 1, "--seed", 1]}
    for line in commands(ROOT / "docs" / "living-table.md"):
        if line.startswith("kdzoo merge"):
            shutil.copytree(place / "results" / "my_loss", place / "results" / "theirs")
        words = shlex.split(line)[1:]
        said = kdzoo(*words, *less.get(words[0], []))
        assert said.status == 0, f"{line}\n{said.out}\n{said.err}"
    assert (place / "submissions" / "my_loss" / "plugins" / "my_loss.py").exists()
