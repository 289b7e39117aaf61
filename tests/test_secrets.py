"""What is secret in the environment or in a command for the end of a bench stands in no file that kdzoo writes, and in no output."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from moments import bench, ended

from kdzoo.cli.notify import kept_command

SECRET = "5ec2e7" * 7
"""in the place of a key of W&B, a token of the Hugging Face hub, a password"""
NAMES = ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "MY_PASSWORD")


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("kdzoo bench --notify 'curl -H key' --seeds 3", "kdzoo bench --seeds 3"),
        ("kdzoo bench --notify=key -j 2", "kdzoo bench -j 2"),
        ("kdzoo bench --name 'a b' --notify", "kdzoo bench --name 'a b'"),
    ],
)
def test_the_command_for_the_end_is_not_kept(words: str, kept: str) -> None:
    assert kept_command(words) == kept


@pytest.mark.slow
def test_no_secret_is_written_or_printed(tmp_path: Path, kdzoo: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a bench with W&B, of which a run fails with its traceback; by its tables, its page and its status."""
    secrets = dict.fromkeys(NAMES, SECRET)
    options = ("--wandb", "offline", "--notify", f"true {SECRET}")
    output = ended(bench(tmp_path, *options, moment="worker step 2 4 memory", environment={**secrets, "WANDB_MODE": "offline"}), 1)
    for name in NAMES:
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    for words in (("report", "r/b"), ("leaderboard", "r/b"), ("status", "r/b")):
        shown = kdzoo(*words)
        assert shown.status == 0, shown.err
        output += shown.out + shown.err
    assert SECRET not in output
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {"run.json", "result.json", "error.txt", "bench.json", "worker-0.log", "report.html"} <= {file.name for file in files}
    assert any(file.suffix == ".wandb" for file in files)
    assert [str(file) for file in files if SECRET.encode() in file.read_bytes()] == []
    shutil.rmtree(tmp_path / "cache")
