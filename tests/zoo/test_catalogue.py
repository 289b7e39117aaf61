"""The catalogue says of every method what its code says, so that methods are listed and explained without loading torch."""

import json
import subprocess
import sys
from dataclasses import fields

import pytest
from build_pages import catalogue_text
from pydantic import ValidationError

from kdzoo.contract import catalogue
from kdzoo.contract.card import Card
from kdzoo.contract.method import stages_read
from kdzoo.contract.methods import REGISTRY, Methods
from kdzoo.errors import InputError

WRITTEN = {name: entry.value for name, entry in catalogue.own_methods().items()}


@pytest.mark.release
def test_the_catalogue_is_what_the_methods_declare_now():
    assert catalogue.FILE.read_text() == catalogue_text(), "run `python docs/build_pages.py --only pages`"


@pytest.mark.release
@pytest.mark.parametrize("name", REGISTRY.own_names())
def test_a_method_of_the_catalogue_declares_what_its_class_declares(name):
    written, real = WRITTEN[name], REGISTRY.get(name)
    for field in fields(Card):
        if field.name not in ("origin", "definition", "outside", "plugin", "stages"):
            assert getattr(written.card, field.name) == getattr(real.card, field.name), field.name
    assert stages_read(written()) == stages_read(real())
    schemas = [cls.model_json_schema()["properties"] for cls in (written, real)] if real.model_fields else [{}, {}]
    assert schemas[0] == schemas[1]


def test_hyperparameters_are_refused_in_the_same_words():
    def problems(cls, **given):
        with pytest.raises(ValidationError) as found:
            cls(**given)
        return [(fault["loc"], fault["msg"]) for fault in found.value.errors()]

    for given in ({"temperature": 0}, {"temperature": "hot"}, {"temprature": 2}):
        assert problems(WRITTEN["hinton"], **given) == problems(REGISTRY.get("hinton"), **given)


def test_maps_that_hang_on_a_hyper_parameter():
    for name in ("cwd", "lwm"):
        for given in ({}, {"stage": 0}):
            assert stages_read(WRITTEN[name](**given)) == stages_read(REGISTRY.create(name, given))


def test_a_hyper_parameter_that_cannot_be_written_down_is_refused():
    class Odd(REGISTRY.get("hinton")):
        power: complex = 1j

    Odd.card = REGISTRY.get("hinton").card
    with pytest.raises(ValueError, match=r"hinton\.power"):
        catalogue.entry_of(Odd)


def test_where_code_is_loaded_the_code_is_read():
    """Nothing of the catalogue ever stands for a method that can be trained."""
    with REGISTRY.declarations():
        assert REGISTRY.get("hinton").__module__ == "kdzoo.methods.hinton"
    fresh = Methods()
    with fresh.declarations():
        assert fresh.get("hinton").card.source == REGISTRY.get("hinton").card.source
        with pytest.raises(InputError, match="did you mean 'hinton'"):
            fresh.get("hintn")
        with pytest.raises(NotImplementedError):
            fresh.create("hinton", {}).loss(None, None, None, None)
    assert "hinton" not in fresh.names(), "outside of the block the catalogue is not read"


def test_listing_and_explaining_load_no_torch():
    commands = [["methods"], ["methods", "--family", "logits", "--format", "json"], ["explain", "hinton", "--alpha", "0.9"]]
    commands += [["explain", "at+hinton", "--temperature", "2"], ["explain", "reviewkd", "--recipe", "crd240"]]
    code = (
        "import json, sys; from kdzoo.cli.app import status_of\n"
        "found = [status_of(words, debug=False) for words in json.loads(sys.argv[1])]\n"
        "print(found, [m for m in ('torch', 'timm', 'pandas', 'scipy') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(commands)], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == f"{[0] * len(commands)} []"
    assert "Distilling the Knowledge in a Neural Network" in done.stdout
