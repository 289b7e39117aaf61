"""docs/your-own-loop.md: its files run as they stand there, in this order, in an empty folder."""

import re
import runpy
import sys

import pytest
import torch
from pages import page

PAGE = page("your-own-loop.md")


@pytest.fixture
def here(tmp_path, monkeypatch):
    for name, code in PAGE.files.items():
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with torch.random.fork_rng(devices=[]):
        yield tmp_path
    sys.modules.pop("mine", None)


def test_every_file_runs_and_the_student_learns(here, capsys):
    assert list(PAGE.files) == ["mine.py", "train.py", "sums.py", "outputs.py"]
    for name in PAGE.files:
        runpy.run_path(name)
    teacher, student = map(float, re.search(r"teacher (\S+), student (\S+)", capsys.readouterr().out).groups())
    assert teacher > 0.8
    assert student > 0.6  # a tenth is chance
    assert "8.weight" in torch.load(here / "student.pt")


def test_crd_takes_at_most_twelve_lines_besides_the_loop():
    lines = [line for line in PAGE.files["train.py"].splitlines() if line.strip() and not line.startswith("#")]
    loop = [line for line in lines if line.startswith(("for ", "    "))]
    assert len(loop) == 7
    assert len(lines) - len(loop) <= 12


def test_the_page_names_what_is_refused():
    from test_distiller import OTHER_IMAGES, TWO_STAGES

    refused = PAGE.text.split("is refused by name")[1].split("\n")[0]
    assert {name for name in re.findall(r"`(\w+)`", refused) if name != "kdzoo"} == {*OTHER_IMAGES, *TWO_STAGES, "bss", "wkd_l"}
