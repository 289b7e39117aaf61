"""One registry for whatever has a name: methods, networks, data sets, pairs and recipes follow the same rules."""

from pathlib import Path

import pytest

import kdzoo as zoo
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.plugins import load_plugin
from kdzoo.data.known import DATA
from kdzoo.models.names import NETWORKS
from kdzoo.models.pairs import PAIRS
from kdzoo.suite.plan.recipe_files import RECIPES

REGISTRIES = (REGISTRY, NETWORKS, DATA, PAIRS, RECIPES)
LINES = {
    "methods": "@kdzoo.register({name!r}, needs=kdzoo.Need.LOGITS)\ndef loss{n}(student, teacher, batch):\n    return 0",
    "network": "def build{n}(num_classes, in_chans):\n    return None\nkdzoo.register_network({name!r}, build{n})",
    "data": "def read{n}():\n    return None\nkdzoo.register_source({name!r}, read{n})",
    "pairs": "kdzoo.register_pair(kdzoo.Pair({name!r}, 'resnet20', 'resnet8', 'set{n}'))",
    "recipe": "kdzoo.register_recipe({name!r}, pathlib.Path(__file__).parent / 'recipe{n}.yaml')",
}
"""what registers something of each kind, in a plugin"""


def plugin(folder: Path, kind: str, name: str, number: int) -> Path:
    file = folder / f"plugin{number}.py"
    file.write_text("import pathlib\nimport kdzoo\n" + LINES[kind].format(name=name, n=number) + "\n")
    return file


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_a_name_means_one_thing_and_its_entry_knows_who_registered_it(tmp_path, registry):
    name = f"mine_{registry.kind}"
    first = plugin(tmp_path, registry.kind, name, 1)
    load_plugin(first)
    assert name in registry
    assert registry.plugin_of(name) == str(first)
    load_plugin(first)  # the same again
    with pytest.raises(zoo.InputError, match=f"{registry.kind}: '{name}' is defined twice: at .* and at .*; choose another name"):
        load_plugin(plugin(tmp_path, registry.kind, name, 2))
    assert registry.plugin_of(name) == str(first)
    with pytest.raises(zoo.InputError, match=f"{registry.kind}: unknown '{name}x'; did you mean '{name}'"):
        registry.get(f"{name}x")
    assert registry.find(f"{name}x") is None


@pytest.mark.parametrize(("registry", "own"), [(REGISTRY, "hinton"), (DATA, "digits"), (PAIRS, "digits"), (RECIPES, "smoke")])
def test_what_is_kdzoos_own_is_found_by_every_process_and_keeps_its_name(tmp_path, registry, own):
    assert registry.plugin_of(own) is None
    with pytest.raises(zoo.InputError, match=f"{registry.kind}: '{own}' is (one of kdzoo's own|defined twice)"):
        load_plugin(plugin(tmp_path, registry.kind, own, 1))


def test_what_this_process_alone_knows_is_found_nowhere_else():
    zoo.register_source("arrays", lambda: zoo.Raw(((), ()), ((), ()), ()))
    assert DATA.plugin_of("arrays") == ""
