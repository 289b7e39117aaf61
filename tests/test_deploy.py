"""docs/deploy.md: its files and commands run as they stand there, and the server answers."""

import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from odd_photos import bare_python
from pages import page

from kdzoo.suite.export.export import FORMATS

PAGE = page("deploy.md")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answer(url: str, content: bytes, patience: float = 30.0) -> str:
    end = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, content)) as response:
                return response.read().decode()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


@pytest.mark.slow
def test_the_page_is_followed_and_the_server_names_the_digits(tmp_path):
    for ran in PAGE.follow(tmp_path):
        assert ran.status == 0, ran
    python = bare_python(tmp_path / "bare", "onnxruntime", "numpy", "Pillow")
    port = free_port()
    server = subprocess.Popen([python, "serve.py", str(port)], cwd=tmp_path / "exported", stderr=subprocess.DEVNULL)
    try:
        files = sorted(Path(tmp_path / "photos").glob("*/*.png"))[::20]
        right = [answer(f"http://127.0.0.1:{port}", file.read_bytes()) == file.parent.name for file in files]
    finally:
        server.terminate()
        server.wait()
    assert len(files) > 30
    assert sum(right) > 0.6 * len(files), "a quarter is chance"
    assert (tmp_path / "exported-pixels" / "student.onnx").is_file()
    assert (tmp_path / "exported-int8" / "student-int8.onnx").is_file()


def test_the_page_has_every_format_and_only_commands_that_are_run():
    assert {name for name in FORMATS if f"| `{name}` |" in PAGE.text} == set(FORMATS)
    commands = [line for block in PAGE.blocks("bash") for line in block.strip().splitlines()]
    assert {command.split()[0] for command in commands} == {"kdzoo", "python"}
