"""A bench of texts from the command line: methods and their refusals, resumed runs, the teacher's cache, one student evaluated."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
from safetensors.torch import save_file
from test_commands import commands
from tiny_texts import write_network, write_texts, write_weights

from kdzoo.contract.build_objective import fault_of_maps
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.shapes import Shapes
from kdzoo.models.text import create_model
from kdzoo.models.text_names import keep_architecture, text_architecture
from kdzoo.runs.store import Store

ROOT = Path(__file__).resolve().parents[2]
SHOW, BENCH, MEASURED = (tuple(shlex.split(line)[1:]) for line in commands(ROOT / "docs" / "text.md"))
"""the commands of the page: the first two, and the one whose table it shows"""
SHORT = (
    "--seeds", 1, "--epochs", 1, "--set", "recipe.lr=0.01", "--set", "teacher_recipe.epochs=10", "--results", "results",
)  # fmt: skip


@pytest.fixture
def words(place, train_here):
    write_texts(place / "reviews.csv")
    folder = write_network(place / "minilm")
    backbone = create_model(text_architecture(keep_architecture(folder)), 3).bert.state_dict()
    save_file({name: value.clone() for name, value in backbone.items()}, folder / "model.safetensors")
    return place


def test_the_command_of_the_measured_table_is_the_one_that_its_results_name():
    assert f"`kdzoo {shlex.join(MEASURED)}`" in (ROOT / "results" / "README.md").read_text()


def bench_of(methods, student="hf:minilm@layers=2"):
    return ("bench", "--data", "text:reviews.csv", "--teacher", "hf:minilm:random", "--student", student, "--methods", methods)


def test_methods_of_scores_states_and_relations_learn_from_a_network_of_texts_and_a_bench_goes_on(kdzoo, words):
    assert "240 texts, 3 classes" in kdzoo(*SHOW).err  # the page "text.md"
    command = (*BENCH, *SHORT, "--keep", "student")
    done = kdzoo(*command)
    assert done.status == 0, done.err
    store = Store(words / "results" / "reviews")
    runs = {run_id.rsplit("-", 1)[0]: store.run(run_id) for run_id in store.ids()}
    assert runs.keys() == {"none", "hinton", "distilbert", "patientkd", "rkd"}
    record = json.loads((runs["distilbert"].path / "run.json").read_text())
    assert record["run"]["student"]["name"].startswith("bert_3x16_")
    assert record["run"]["teacher"]["name"].startswith("bert_4x16_")
    assert record["about"]["data"]["texts"] is True

    before = {name: (folder.path / "result.json").read_bytes() for name, folder in runs.items()}
    first = dict(runs["patientkd"].test_metrics())
    shutil.rmtree(runs["patientkd"].path)
    again = kdzoo(*command)
    assert again.status == 0, again.err
    assert {name: (folder.path / "result.json").read_bytes() for name, folder in runs.items() if name != "patientkd"} == {
        name: text for name, text in before.items() if name != "patientkd"
    }
    assert runs["patientkd"].test_metrics() == first  # the same bits, from answers of the teacher that were kept

    evaluated = kdzoo("evaluate", runs["distilbert"].path, "--json")
    assert evaluated.status == 0, evaluated.err
    assert json.loads(evaluated.out)["same"]
    refused = kdzoo("export", runs["distilbert"].path, "--format", "timm", "--out", "shipped")
    assert refused.status == 2
    assert "trained on texts, which no image file holds" in refused.err


def test_what_cannot_learn_from_texts_or_from_images_is_refused_by_name_before_any_training(kdzoo, words):
    refused = kdzoo(*bench_of("at,reviewkd,sobolev,hinton"), "--dry-run")
    assert refused.status == 2
    for name in ("at", "reviewkd"):
        assert f"{name}: reads maps over the height and width of images, but these are networks of texts" in refused.err
    assert "sobolev: looks at gradients by the pixels of images" in refused.err
    assert "hinton" not in refused.err
    assert "patientkd: reads the hidden states of texts" in kdzoo("bench", "--methods", "patientkd", "--dry-run").err
    short = kdzoo(*bench_of("distilbert,patientkd,hinton", student="hf:minilm@layers=2@16"), "--dry-run")
    assert short.status == 2
    assert "distilbert: compares token by token, but the student reads 16 of a text and the teacher 47" in short.err
    assert "patientkd" not in short.err
    assert "network resnet8: takes images, but text has texts" in kdzoo(*bench_of("hinton", student="resnet8"), "--dry-run").err
    assert "takes texts, but digits has images" in kdzoo("bench", "--teacher", "hf:minilm:random", "--student", "resnet8", "--dry-run").err


@pytest.mark.parametrize("kind", ["distilbert", "roberta"])
def test_a_finished_classifier_teaches_without_being_trained_and_a_backbone_is_to_be_fine_tuned(kdzoo, words, kind):
    folder = write_network(words / "finished", kind=kind)
    write_weights(folder, "AutoModelForSequenceClassification", classes=3)
    command = ("bench", "--data", "text:reviews.csv", "--teacher", "hf:finished", "--student", "hf:minilm@layers=2", "--methods", "hinton")
    done = kdzoo(*command, "--dry-run")
    assert done.status == 0, done.err
    write_weights(folder, "AutoModelForMaskedLM")
    assert "its weights have no classifier" in kdzoo(*command, "--dry-run").err
    tuned = kdzoo(*command, "--fine-tune", "--dry-run")
    assert tuned.status == 0, tuned.err


@pytest.mark.parametrize(
    ("words_of_it", "fault"),
    [
        (("--set", "recipe.augment.flip=true"), "recipe.augment.flip: text has texts"),
        (("--set", "recipe.mixup=0.2"), "recipe.mixup: text has texts"),
        (("--transfer-data", "text:reviews.csv"), "transfer_data: has images, text has texts"),
    ],
)
def test_what_is_made_for_images_is_refused_of_texts(kdzoo, words, words_of_it, fault):
    refused = kdzoo(*bench_of("hinton"), *words_of_it, "--dry-run")
    assert refused.status == 2
    assert fault in refused.err


def test_the_declaration_says_of_which_maps_a_method_reads():
    cards = {name: REGISTRY.get(name).card for name in REGISTRY.own_names()}
    assert {name for name, card in cards.items() if card.of_texts_alone} == {"distilbert", "patientkd"}
    assert set(REGISTRY.own_names()) - set(REGISTRY.names_for_images()) == {"distilbert", "patientkd"}
    assert {name for name, card in cards.items() if card.maps == "any"} == {"sp"}
    of_texts, of_images = (Shapes(3, 8, (), sequences=sequences) for sequences in (True, False))
    served = {name for name, card in cards.items() if not fault_of_maps(card, of_texts)}
    assert {"hinton", "dkd", "rkd", "pkt", "crd", "sp", "distilbert", "patientkd"} <= served
    assert not served & {"at", "fitnet", "sobolev", "bss", "semckd"}
    assert all(not fault_of_maps(card, of_images) for name, card in cards.items() if name not in ("distilbert", "patientkd"))
