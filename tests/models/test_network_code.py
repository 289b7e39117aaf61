"""The code of a user's network is part of what a run is: other code is another run, and is never trained under the old one's id."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from kdzoo.errors import InputError
from kdzoo.models.build import build_network
from kdzoo.models.names import code_of, register_network
from kdzoo.runs.spec import NetworkSpec

PLUGIN = """
import kdzoo
from torch import nn
from widths import WIDTH

def mine(num_classes, in_chans):
    body = nn.Sequential(nn.Conv2d(in_chans, WIDTH, 3), nn.{activation}(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(body, nn.Linear(WIDTH, num_classes))

kdzoo.register_network("code_of_mine", mine)
"""


@pytest.fixture
def planned(place: Path) -> Callable[[], dict[str, str]]:
    """The ids of a bench of a plugin's network, by method."""
    from kdzoo.suite.plan.layers import bench_config
    from kdzoo.suite.run.prepare import prepare

    def ids() -> dict[str, str]:
        options = {"data": "digits", "recipe": "digits", "teacher": "digits_teacher", "student": "code_of_mine", "methods": "hinton"}
        prepared = prepare(bench_config({**options, "seeds": "1", "plugin": str(place / "mine.py")}, None))
        return {planned.run.objective.label: planned.run.id for planned in prepared.plan.students}

    (place / "widths.py").write_text("WIDTH = 8\n")
    (place / "mine.py").write_text(PLUGIN.format(activation="ReLU"))
    return ids


def test_other_code_is_another_run_and_a_comment_is_none(planned: Callable[[], dict[str, str]], place: Path) -> None:
    first = planned()
    (place / "mine.py").write_text("# a comment\n" + PLUGIN.format(activation="ReLU"))
    assert planned() == first
    (place / "mine.py").write_text(PLUGIN.format(activation="GELU"))
    second = planned()
    (place / "mine.py").write_text(PLUGIN.format(activation="ReLU"))
    (place / "widths.py").write_text("WIDTH = 12\n")
    third = planned()
    assert first.keys() == second.keys() == third.keys()
    assert all(len({first[label], second[label], third[label]}) == 3 for label in first)


def test_a_run_that_was_planned_with_other_code_is_refused(planned: Callable[[], dict[str, str]]) -> None:
    planned()
    spec = NetworkSpec(name="code_of_mine", classes=10, code="0123456789ab")
    with pytest.raises(InputError, match="planned in version 0123456789ab, but its code is now version"):
        build_network(spec, channels=1, side=8, mean=(0.5,), std=(0.5,), seed=0)


def test_kdzoos_and_timms_networks_have_no_version_and_keep_their_ids() -> None:
    assert code_of("resnet18") is None
    assert code_of("resnet8x4") is None
    assert "code" not in NetworkSpec(name="resnet18", classes=10).model_dump()


def test_a_class_and_a_partial_function_have_a_version() -> None:
    from torch import nn

    class Net(nn.Module):
        def __init__(self, num_classes: int, in_chans: int, width: int = 4) -> None:
            super().__init__()
            self.head = nn.Linear(in_chans * width, num_classes)

    for name, build in {"code_of_a_class": Net, "code_of_a_partial": partial(Net, width=8)}.items():
        register_network(name, build)
        assert code_of(name)


REPLACED = """
import sys
from timm.models import register_model
from torch import nn

@register_model
def resnet8(pretrained=False, num_classes=10, in_chans=3, **options):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))

from kdzoo.models.names import code_of, is_known, make_known
import timm
make_known("resnet8")
print(is_known("resnet8"), code_of("resnet8") is not None, code_of("resnet20") is None, type(timm.create_model("resnet8")).__name__)
"""


def test_a_network_that_a_plugin_put_in_the_place_of_one_of_kdzoos_stays_and_is_told_by_its_code(place: Path) -> None:
    (place / "replaced.py").write_text(REPLACED)
    done = subprocess.run([sys.executable, "replaced.py"], cwd=place, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "True", "Sequential"]


INSTALLED = """
from timm.models import register_model
from torch import nn

@register_model
def my_installed_net(pretrained=False, num_classes=10, in_chans=3, **options):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))

@register_model
def resnet8(pretrained=False, num_classes=10, in_chans=3, **options):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))
"""


def test_networks_of_an_installed_package_are_known_by_their_code_before_any_method_is_read(place: Path) -> None:
    (place / "their_nets.py").write_text(INSTALLED)
    meta = place / "their_nets-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: their-nets\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text("[kdzoo.methods]\nnets = their_nets\n")
    path = os.pathsep.join([str(place), *filter(None, [os.environ.get("PYTHONPATH")])])
    code = "from kdzoo.models.names import code_of; print(*(code_of(name) for name in ('my_installed_net', 'resnet8', 'resnet20')))"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    own, replaced, kdzoos = done.stdout.split()
    assert own != "None"
    assert replaced != "None"
    assert kdzoos == "None"
