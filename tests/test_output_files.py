"""A file that a user names is written where its links lead, and what is no plain file is left as it is."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kdzoo.errors import InputError
from kdzoo.files import kind_of
from kdzoo.models.join import save_joined
from kdzoo.runs.output_files import output_file
from kdzoo.suite.export.folders import filled_folder, refuse_used
from kdzoo.teachers.file_io import require_new_saved_file, write_saved

DIGITS = Path(__file__).resolve().parent.parent / "results" / "digits"
PLOT = ["plot", DIGITS, "--kind", "forest", "-o"]


@pytest.fixture
def things(place):
    """What is no plain file, by its name, and what it is called."""
    os.mkfifo(place / "pipe.svg")
    (place / "folder.svg").mkdir()
    (place / "device.svg").symlink_to("/dev/null")
    (place / "pipe-by-link.svg").symlink_to("pipe.svg")
    return {"pipe.svg": "is a pipe", "folder.svg": "is a folder", "device.svg": "is a device", "pipe-by-link.svg": "is a pipe"}


def kinds(place: Path) -> dict[str, int]:
    return {path.name: stat.S_IFMT(path.lstat().st_mode) for path in place.iterdir()}


@pytest.mark.parametrize("verb", [["report", DIGITS, "-o"], PLOT])
def test_what_is_no_plain_file_is_refused_by_name_and_stays(kdzoo, place, things, verb):
    before = kinds(place)
    for name, words in things.items():
        said = kdzoo(*verb, name)
        assert said.status == 2
        assert said.err.startswith(f"kdzoo: output: {name} ")
        assert words in said.err
    assert kinds(place) == before
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("target", ["old.svg", "new/new.svg"])
def test_a_link_is_followed_and_stays_a_link(kdzoo, place, target):
    (place / "old.svg").write_text("before")
    (place / "link.svg").symlink_to(target)
    said = kdzoo(*PLOT, "link.svg")
    assert (said.status, said.out) == (0, "plot: link.svg, with its numbers in link.svg.csv\n")
    assert os.readlink(place / "link.svg") == target
    assert (place / target).read_text().startswith("<svg")


def test_the_numbers_beside_a_chart_replace_no_pipe_either(kdzoo, place):
    os.mkfifo(place / "chart.svg.csv")
    said = kdzoo(*PLOT, "chart.svg")
    assert (said.status, said.err) == (2, "kdzoo: output: chart.svg.csv is a pipe; expected a plain file, or a new name\n")
    assert not (place / "chart.svg").exists()


@pytest.mark.parametrize("name", ["out.html", "stdout"])
def test_the_file_that_is_standard_output_is_not_replaced(place, name):
    (place / "stdout").symlink_to("/dev/stdout")
    with (place / "out.html").open("w") as out:
        command = [sys.executable, "-m", "kdzoo", "report", str(DIGITS), "-o", name]
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, f"kdzoo: output: {name} is standard output; expected a file of its own\n")
    assert (place / "out.html").read_text() == ""


def test_links_that_lead_in_a_circle_are_refused(place):
    (place / "a").symlink_to("b")
    (place / "b").symlink_to("a")
    with pytest.raises(InputError, match="output: cannot write a: "):
        output_file(Path("a"))


def test_a_teacher_is_saved_where_a_link_leads_and_into_no_pipe(place, things):
    (place / "link.npz").symlink_to("there.npz")
    require_new_saved_file(Path("link.npz"))
    write_saved(Path("link.npz"), {"logits": torch.zeros(2, 3)}, {"name": "x"})
    assert (place / "link.npz").is_symlink()
    assert (place / "there.npz").read_bytes().startswith(b"PK")
    with pytest.raises(InputError, match="exists already"):
        require_new_saved_file(Path("link.npz"))
    os.mkfifo(place / "pipe.safetensors")
    with pytest.raises(InputError, match=r"pipe\.safetensors is a pipe"):
        require_new_saved_file(Path("pipe.safetensors"))
    with pytest.raises(InputError, match=r"pipe\.safetensors is a pipe"):
        save_joined(("resnet8", "resnet8"), torch.zeros(2, 3, 8, 8, dtype=torch.uint8), Path("pipe.safetensors"))


def test_an_exported_folder_is_no_file_and_takes_the_place_of_one_that_a_link_leads_to(place, things):
    for name, words in things.items():
        if name != "folder.svg":
            with pytest.raises(InputError, match=f"out: {name} {words}; name a new folder"):
                refuse_used(Path(name))
    (place / "link").symlink_to("folder.svg")
    refuse_used(Path("link"))
    with filled_folder(Path("link")) as folder:
        (folder / "README.md").write_text("x")
    assert os.readlink(place / "link") == "folder.svg"
    assert os.listdir(place / "folder.svg") == ["README.md"]


@pytest.mark.parametrize("verb", [["merge", DIGITS], ["submit", DIGITS, "--author", "A. Name"]])
def test_a_new_folder_is_none_that_is_a_file_or_a_link_to_nothing(kdzoo, place, verb):
    (place / "file").write_text("")
    (place / "lost").symlink_to("nowhere")
    before = kinds(place)
    for name, words in {"file": "is a file", "lost": "is a link that leads nowhere"}.items():
        said = kdzoo(*verb, "-o", name)
        assert said.status == 2
        assert f"kdzoo: {verb[0]}: {name} {words}; name a new folder" in said.err
    assert kinds(place) == before


def test_every_kind_of_file_has_a_name(place, things):
    found = [kind_of((place / name).stat().st_mode) for name in things]
    assert [f"is {kind}" for kind in found] == list(things.values())
