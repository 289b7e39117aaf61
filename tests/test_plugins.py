"""A plugin with its helpers: what decides its version, whose names it may use, and how it ends kdzoo: never in silence."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import members_of_group, started
from shared_benches import wait_until

from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.plugins import load_plugin
from kdzoo.errors import InputError

PLUGIN = """
import kdzoo
from helpers import distance

@kdzoo.register({name!r}, needs=kdzoo.Need.LOGITS)
def loss(student, teacher, batch):
    return distance(student.logits, teacher.logits)
"""
HELPERS = "from deeper.below import factor\n\ndef distance(a, b):\n    return factor() * (a - b).square().mean()\n"
BELOW = "def factor():\n    from beside import FACTOR\n    return FACTOR\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A plugin whose helper imports a module in a folder below, which imports another beside when it is called."""
    write(tmp_path, "plugin.py", PLUGIN.format(name="helped"))
    write(tmp_path, "helpers.py", HELPERS)
    write(tmp_path, "deeper/below.py", BELOW)
    write(tmp_path, "beside.py", "FACTOR = 2.0\n")
    write(tmp_path, "unrelated.py", "FACTOR = 2.0\n")
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def version(folder: Path, name: str = "helped") -> str:
    load_plugin(folder / "plugin.py")
    return REGISTRY.get(name).card.version


def scale(name: str) -> float:
    """What a method makes of logits that differ by one."""
    import torch

    from kdzoo.contract.batch import Batch, Progress
    from kdzoo.contract.needs import Need
    from kdzoo.contract.outputs import Outputs

    one, two = (Outputs.of({Need.LOGITS: torch.full((2, 3), value)}, owner="student") for value in (1.0, 2.0))
    batch = Batch(inputs=one.logits, targets=one.logits, index=one.logits, clock=Progress(0, 1, 0, 1), generator=torch.Generator())
    given = REGISTRY.create(name, {}).loss(one, two, batch, torch.nn.Module())
    assert isinstance(given, torch.Tensor)
    return float(given)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("helpers.py", HELPERS.replace(".mean()", ".sum()")),
        ("deeper/below.py", BELOW.replace("return FACTOR", "return -FACTOR")),
        ("beside.py", "FACTOR = 3.0\n"),
        ("deeper/__init__.py", "import torch\n"),
    ],
)
def test_code_that_changes_in_a_helper_is_another_version_and_a_comment_is_none(folder, file, text):
    first = version(folder)
    write(folder, "unrelated.py", "FACTOR = 3.0\n")
    write(folder, "helpers.py", '"""What helps."""\n' + HELPERS + "# and no more\n")
    assert version(folder) == first
    write(folder, file, text)
    assert version(folder) != first


def test_a_plugin_without_helpers_keeps_the_version_of_its_own_text(folder):
    write(folder, "plugin.py", PLUGIN.format(name="helped"))
    helped = version(folder)
    write(folder, "plugin.py", PLUGIN.format(name="helped").replace("from helpers import distance", "distance = 1"))
    alone = version(folder)
    for name in ("helpers.py", "beside.py"):
        (folder / name).unlink()
    assert version(folder) == alone != helped


def test_what_was_changed_is_what_runs(folder):
    load_plugin(folder / "plugin.py")
    assert scale("helped") == 2.0
    write(folder, "beside.py", "FACTOR = 3.0\n")  # of the same length, within the same second
    load_plugin(folder / "plugin.py")
    assert scale("helped") == 3.0


def test_two_plugins_may_each_have_helpers_of_one_name(tmp_path):
    before = set(sys.modules)
    for name, factor in (("first", 5.0), ("second", 7.0)):
        write(tmp_path / name, "plugin.py", PLUGIN.format(name=name))
        write(
            tmp_path / name,
            "helpers.py",
            f"def distance(a, b):\n    import json\n    return {factor} * json.loads('1') * (a - b).square().mean()\n",
        )
        write(tmp_path / name, "json.py", "raise RuntimeError('the standard library comes first')\n")
        load_plugin(tmp_path / name / "plugin.py")
    assert (scale("first"), scale("second")) == (5.0, 7.0)
    assert all(name.startswith("_kdzoo_plugin_") for name in set(sys.modules) - before)
    assert str(tmp_path) not in " ".join(sys.path)


def test_helpers_are_found_by_every_kind_of_import(tmp_path):
    write(tmp_path, "pack/__init__.py", "from . import inner\nfrom .inner import value as again\n")
    write(tmp_path, "pack/inner.py", "from ..single import three\nvalue = three\n")
    write(tmp_path, "single.py", "three = 3\n")
    write(
        tmp_path,
        "plugin.py",
        "import pack.inner, single as one\nfrom . import single\nfrom pack import *\nfrom .pack import inner\n"
        "assert pack.inner.value == pack.again == inner.value == one.three == single.three == again == 3\n"
        "assert one is single and pack.inner is inner\n",
    )
    load_plugin(tmp_path / "plugin.py")


def test_a_helper_that_fails_is_named_with_its_line(tmp_path):
    write(tmp_path, "plugin.py", "import helpers\n")
    write(tmp_path, "helpers.py", "x = 1\n\ndef (\n")
    with pytest.raises(InputError, match=r"helpers\.py:3: syntax error"):
        load_plugin(tmp_path / "plugin.py")
    write(tmp_path, "helpers.py", "import missing_module_of_nobody\n")
    with pytest.raises(InputError, match=r"plugin\.py:1: ModuleNotFoundError: No module named 'missing_module_of_nobody'"):
        load_plugin(tmp_path / "plugin.py")


def test_a_helper_may_register_and_is_of_the_plugin(folder):
    write(
        folder,
        "beside.py",
        "import kdzoo\nFACTOR = 2.0\n@kdzoo.register('from_helper', needs=kdzoo.Need.LOGITS)\ndef f(s, t, b):\n    return 0\n",
    )
    write(folder, "helpers.py", "import beside\n" + HELPERS)
    load_plugin(folder / "plugin.py")
    assert REGISTRY.get("from_helper").card.plugin == str(folder / "plugin.py")


# --- how a plugin may not end


ENDS = {
    "import sys; sys.exit(0)": "plugin: ends.py:2: plugin ends.py ends the process, with sys.exit(0)",
    "import os; os._exit(0)": "plugin: ends.py:2: plugin ends.py ends the process, with os._exit(0)",
    "exit()": "plugin: ends.py:2: plugin ends.py ends the process, with sys.exit()",
    "raise SystemExit": "plugin: ends.py:2: plugin ends.py ends the process, with sys.exit()",
    "raise KeyboardInterrupt": "plugin: ends.py:2: KeyboardInterrupt",
    "import torch; torch.set_default_dtype(torch.float64)": "plugin ends.py changed torch's default dtype for the whole process",
}


@pytest.mark.parametrize(("harm", "words"), ENDS.items())
def test_a_plugin_that_ends_the_process_is_refused_in_words(kdzoo, place, monkeypatch, harm, words):
    import signal

    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN)  # as in a worker; the command line has a handler of its own
    (place / "ends.py").write_text(f"x = 1\n{harm}\n")
    said = kdzoo("methods", "--plugin", "ends.py")
    assert (said.status, words in said.err) == (2, True), said


@pytest.mark.parametrize("verb", ["methods", "bench"])
def test_a_plugin_that_hangs_while_it_is_imported_is_ended_by_ctrl_c(place, verb):
    (place / "hangs.py").write_text("import time\nopen('reached', 'w').close()\ntime.sleep(600)\n")
    process = started([sys.executable, "-m", "kdzoo", verb, "--plugin", "hangs.py"], folder=place, environment=os.environ)
    wait_until((place / "reached").exists, [process])
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert members_of_group(process.pid) == []


VERBS = [
    ("methods", "--plugin", "ends.py"),
    ("networks", "--plugin", "ends.py"),
    ("pairs", "--plugin", "ends.py"),
    ("recipes", "--plugin", "ends.py"),
    ("data", "list", "--plugin", "ends.py"),
    ("explain", "hinton", "--plugin", "ends.py"),
    ("check", "ends.py"),
    ("train", "resnet8", "--plugin", "ends.py"),
]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_for_every_verb_that_takes_one(kdzoo, place, verb):
    (place / "ends.py").write_text("import os\nos._exit(0)\n")
    said = kdzoo(*verb)
    assert (said.status, "plugin ends.py ends the process, with os._exit(0)" in said.err) == (2, True), said


@pytest.mark.slow
def test_in_a_process_of_its_own_too(kdzoo_process, place):
    (place / "ends.py").write_text("import os, signal\nos._exit(0)\n")
    said = kdzoo_process("bench", "--quick", "--plugin", "ends.py")
    assert (said.status, "os._exit(0)" in said.err) == (2, True), said


def test_a_method_that_ends_the_process_fails_its_check(kdzoo, place):
    text = "import kdzoo, os\n@kdzoo.register('ending', needs=kdzoo.Need.LOGITS)\ndef ending(student, teacher, batch):\n    os._exit(0)\n"
    (place / "ending.py").write_text(text)
    said = kdzoo("check", "ending.py")
    assert said.status == 1
    assert "ends the process, with os._exit(0)" in said.out


def test_an_installed_package_that_ends_the_process_is_broken_and_no_more(tmp_path):
    write(tmp_path, "their_exit.py", "import os\nos._exit(0)\n")
    meta = tmp_path / "their_exit-1.0.dist-info"
    write(meta, "METADATA", "Metadata-Version: 2.1\nName: their-exit\nVersion: 1.0\n")
    write(meta, "entry_points.txt", "[kdzoo.methods]\nleaving = their_exit\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "kdzoo", "methods"], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "hinton" in done.stdout
    assert "the installed plugin leaving could not be loaded: their_exit: Interference: " in done.stderr
    assert "os._exit(0)" in done.stderr
