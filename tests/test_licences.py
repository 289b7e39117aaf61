"""Which licences a run is made under: where they are declared, that they are recorded, told and refused, and change no run."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import kdzoo as zoo
from kdzoo.data.known import licence_of_data
from kdzoo.errors import InputError
from kdzoo.models.licences import file_licence, pretrained_licence
from kdzoo.runs.about import about_faults
from kdzoo.runs.licences import (
    OWN,
    PERMISSIVE,
    UNKNOWN,
    Licensed,
    distilled_words,
    licence_in,
    licence_in_card,
    of_all,
    record,
    recorded,
    refusals,
    spelled,
)
from kdzoo.runs.spec import NetworkSpec
from kdzoo.runs.store import Store
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.licences import things_of_weights
from kdzoo.suite.plan.sweep import plan

NOT_COMMERCIAL = "convnextv2_atto"
"""a network whose usual weights of timm are under CC-BY-NC-4.0"""


@pytest.mark.parametrize("name", ["Apache-2.0", "MIT", "BSD-3-Clause", "bsd-2-clause", "0BSD", "ISC", "CC0-1.0", "cc-by-4.0", "CC-BY-3.0"])
def test_licences_that_ask_for_no_more_than_a_notice_are_permissive(name):
    assert PERMISSIVE.fullmatch(name)


@pytest.mark.parametrize("name", ["CC-BY-NC-4.0", "CC-BY-SA-4.0", "CC-BY-ND-4.0", "GPL-3.0-or-later", "other", "apple-ascl", "gemma"])
def test_all_others_are_not(name):
    assert not PERMISSIVE.fullmatch(name)


def test_a_usual_licence_has_the_spelling_of_spdx():
    assert [spelled(name) for name in ("apache-2.0", "cc-by-nc-4.0", "dinov3-license", "unknown", "", None, "own", " Own ")] == [
        "Apache-2.0",
        "CC-BY-NC-4.0",
        "dinov3-license",
        UNKNOWN,
        UNKNOWN,
        UNKNOWN,
        UNKNOWN,
        UNKNOWN,
    ]


def test_somebodys_file_makes_nothing_the_users_own(tmp_path):
    (tmp_path / "LICENSE").write_text("SPDX-License-Identifier: own\n")
    licence = licence_of_data(f"folder:{tmp_path}")
    assert licence == UNKNOWN
    assert refusals([Licensed("data", "photos", licence)], ("permissive",))


def test_timm_says_the_licence_of_most_of_its_weights():
    names = timm.list_models(pretrained=True)
    licences = [pretrained_licence(name)[1] for name in names]
    assert sum(licence != UNKNOWN for licence in licences) > 0.95 * len(names)
    assert pretrained_licence("resnet50") == (f"resnet50.{timm.get_pretrained_cfg('resnet50').tag}", "Apache-2.0")
    assert pretrained_licence(NOT_COMMERCIAL)[1] == "CC-BY-NC-4.0"
    assert pretrained_licence("wrn_16_1") == ("wrn_16_1", UNKNOWN)


def test_a_file_of_weights_says_its_licence_itself_or_in_a_file_beside_it(tmp_path):
    tensors = {"weight": torch.zeros(2)}
    for name, metadata in (("plain", {}), ("own", {"license": "mit"}), ("beside", {"license": "mit"})):
        save_file(tensors, tmp_path / f"{name}.safetensors", metadata)
    (tmp_path / "beside.safetensors.license").write_text("SPDX-FileCopyrightText: someone\n\nSPDX-License-Identifier: CC-BY-NC-4.0\n")
    assert [file_licence(tmp_path / f"{name}.safetensors") for name in ("plain", "own", "beside")] == [UNKNOWN, "MIT", "CC-BY-NC-4.0"]
    made_from = {"nc": "teacher big: CC-BY-NC-4.0; data photos: unknown", "mit": "teacher big: MIT; student's start random weights: own"}
    for name, licences in made_from.items():
        save_file(tensors, tmp_path / f"{name}.safetensors", {"licences": licences})
    assert [file_licence(tmp_path / f"{name}.safetensors") for name in made_from] == ["CC-BY-NC-4.0", "MIT"], "as kdzoo exports students"
    torch.save(tensors, tmp_path / "old.pth")
    assert file_licence(tmp_path / "old.pth") == UNKNOWN
    (tmp_path / "old.pth.license").write_text("SPDX-License-Identifier: Apache-2.0")
    assert file_licence(tmp_path / "old.pth") == "Apache-2.0"


def test_else_the_model_card_of_its_folder_says_its_licence(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    card = tmp_path / "README.md"
    for text, licence in {
        "---\nlanguage: en\nlicense: apache-2.0\ntags: [a]\n---\n# A model\n": "Apache-2.0",
        "---\nlicense: other\nlicense_name: some-own-licence\n---\n": "some-own-licence",
        "---\nlicense: other\n---\n": UNKNOWN,
        "---\nlicense: [mit, apache-2.0]\n---\n": UNKNOWN,
        "---\nlicense: {\n---\n": UNKNOWN,
        "# A model\n\nlicense: mit\n": UNKNOWN,
    }.items():
        card.write_text(text)
        assert file_licence(tmp_path / "model.safetensors") == licence, text
    card.write_text("---\nlicense: mit\n---\n")
    (tmp_path / "model.safetensors.license").write_text("SPDX-License-Identifier: CC-BY-NC-4.0\n")
    assert file_licence(tmp_path / "model.safetensors") == "CC-BY-NC-4.0"


def test_data_have_the_licence_that_is_declared_of_them(tmp_path):
    assert licence_of_data("digits") == "CC-BY-4.0"
    assert licence_of_data("spoken_digits") == "CC-BY-SA-4.0"
    assert licence_of_data("cifar10_16") == licence_of_data("cifar10") == UNKNOWN
    zoo.register_source("licensed", lambda: None, "made up", licence="cc0-1.0")
    assert licence_of_data("licensed") == "CC0-1.0"
    assert licence_of_data(f"folder:{tmp_path}") == UNKNOWN
    (tmp_path / "LICENSE").write_text("Photographs by their authors.\nSPDX-License-Identifier: CC-BY-SA-4.0\n")
    assert licence_of_data(f"folder:{tmp_path}") == "CC-BY-SA-4.0"


THINGS = (
    Licensed("teacher", "resnet50.a1_in1k", "Apache-2.0"),
    Licensed("student's start", "random weights", OWN),
    Licensed("data", "photos", UNKNOWN),
    Licensed("data", "stamps", "GPL-2.0-only"),
)


def test_what_is_not_permissive_is_refused_and_what_is_unknown_on_request_not():
    assert refusals(THINGS, ()) == []
    unknown, other = refusals(THINGS, ("permissive",))
    assert unknown == "licence: data photos: its licence is unknown; --licence permissive,unknown lets it pass"
    assert other.startswith("licence: data stamps is under GPL-2.0-only, expected Apache-2.0, MIT, ")
    assert refusals(THINGS, ("permissive", "unknown")) == [other]


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("# SPDX-License-Identifier: mit", "MIT"),
        ("/* SPDX-License-Identifier: Apache-2.0 */", "Apache-2.0"),
        ("SPDX-License-Identifier: MIT AND CC-BY-NC-4.0\n", "MIT AND CC-BY-NC-4.0"),
        ("SPDX-License-Identifier: MIT\nSPDX-License-Identifier: CC-BY-NC-4.0\n", "MIT AND CC-BY-NC-4.0"),
        ("SPDX-License-Identifier: MIT OR GPL-2.0-only", "MIT OR GPL-2.0-only"),
    ],
)
def test_the_whole_of_an_expression_is_read_so_that_no_part_of_it_passes_for_all(tmp_path, text, licence):
    (tmp_path / "LICENSE").write_text(text)
    assert licence_in(tmp_path / "LICENSE") == licence
    refused = refusals([Licensed("data", "photos", licence)], ("permissive",))
    assert bool(refused) == ("NC" in licence or "OR" in licence)


@pytest.mark.parametrize(
    ("licences", "licence"),
    [
        (["MIT", "own"], "MIT"),
        (["MIT", "Apache-2.0"], "MIT AND Apache-2.0"),
        (["MIT", "unknown"], "unknown"),
        (["CC-BY-NC-4.0", "unknown"], "CC-BY-NC-4.0"),
        (["own"], "unknown"),
        ([], "unknown"),
    ],
)
def test_what_is_made_from_several_things_is_under_all_that_binds_it(licences, licence):
    assert of_all(licences) == licence


def test_a_licence_from_somebodys_file_stays_text():
    hostile = Licensed("teacher", "big`", "MIT <script>alert(1)</script>\n# Heading")
    words = distilled_words((replace(hostile, licence=spelled(hostile.licence)),), "big")
    assert "<script" not in words
    assert "\n" not in words


def test_what_is_recorded_is_read_back_and_is_no_fault_of_run_json():
    about = json.loads(json.dumps({"licences": record((*THINGS, THINGS[0]))}))
    assert recorded(about) == THINGS
    assert about_faults(about) == []
    assert about_faults({"licences": [{"part": "data", "of": 3, "licence": "MIT"}]}) != []
    assert recorded({}) == ()


def test_a_student_is_said_to_be_distilled_from_its_teacher_under_its_licence():
    assert distilled_words(THINGS, "resnet50") == "distilled with kdzoo from `resnet50.a1_in1k` under Apache-2.0"
    assert distilled_words((), "resnet50").endswith("`resnet50` under an unknown licence")


def planned(**options):
    return plan(bench_config({"seeds": "0,", "methods": "hinton", "data": "digits", **options}, None))


def test_every_run_records_what_it_is_made_from(place):
    made = planned(teacher=f"{NOT_COMMERCIAL}:pretrained", student="test_resnet:pretrained", fine_tune=True, recipe="smoke")
    (teacher,) = made.teachers.values()
    start, data = Licensed("teacher", *pretrained_licence(NOT_COMMERCIAL)), Licensed("data", "digits", "CC-BY-4.0")
    assert recorded(teacher.about) == (replace(start, part="student's start"), data)
    for one in made.students:
        own = Licensed("student's start", *pretrained_licence("test_resnet"))
        assert set(recorded(one.about)) == {own, data, *([start] if one.run.teacher else [])}


def test_the_default_bench_is_made_from_random_weights_and_licensed_data(place):
    things = {thing for one in planned().students for thing in recorded(one.about)}
    assert things == {
        Licensed("teacher", "digits_teacher", OWN),
        Licensed("student's start", "random weights", OWN),
        Licensed("data", "digits", "CC-BY-4.0"),
    }
    assert planned(licence="permissive").students


def test_a_network_that_starts_from_a_run_brings_the_licences_of_that_run(place):
    """Those that the run records; of an older run, which records none, those that are known of what it names."""
    run = next(one for one in planned(teacher="digits_teacher", student="digits_student").students if one.run.teacher)
    folder = Store(place / "results" / "first").run(run.run.id)
    foreign = Licensed("teacher", "foreign.weights", "CC-BY-NC-4.0")
    folder.plan(run.run, {**run.about, "licences": record((foreign, *recorded(run.about)[1:]))})
    spec = NetworkSpec(name="digits_student", classes=10, start=f"run:{run.run.id}")
    things = things_of_weights("teacher", spec, str(folder.student), None)
    assert things == (foreign, Licensed("teacher", "digits_student", OWN), Licensed("data", "digits", "CC-BY-4.0"))
    older = Store(place / "results" / "older").run(run.run.id)
    older.plan(run.run, {key: value for key, value in run.about.items() if key != "licences"})
    assert things_of_weights("teacher", spec, str(older.student), None)[1:] == things[1:]


def test_a_file_that_was_saved_for_the_purpose_is_named_without_its_folder(tmp_path):
    file = tmp_path / "answers.safetensors"
    save_file({"keys": torch.zeros(1)}, file)
    spec = NetworkSpec(name="resnet50", classes=10, start=f"saved:{'0' * 64}")
    assert things_of_weights("teacher", spec, str(file), None) == (Licensed("teacher", "answers.safetensors", UNKNOWN),)


def test_a_folder_of_images_is_named_without_its_path(place, tmp_path):
    for label in ("one", "two"):
        for number in range(12):
            folder = tmp_path / "mine" / "photos" / label
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng([number, len(label)]).integers(0, 256, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}{label}.png")
    (tmp_path / "mine" / "photos" / "LICENSE").write_text("SPDX-License-Identifier: CC0-1.0")
    made = planned(
        data=f"folder:{tmp_path / 'mine' / 'photos'}", teacher="resnet14", student="resnet8", recipe="smoke", licence="permissive"
    )
    assert Licensed("data", "photos", "CC0-1.0") in recorded(made.students[0].about)


def test_a_licence_changes_no_run(place):
    any_licence, permissive = planned(), planned(licence="permissive")
    assert [one.run.id for one in any_licence.students] == [one.run.id for one in permissive.students]


def test_what_may_not_be_used_is_refused_before_training_with_all_else(place):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 8, 8)).astype(np.uint8), np.arange(40) % 4

    def read() -> zoo.Raw:
        return zoo.Raw((images, labels), (images[::-1].copy(), labels[::-1].copy()))

    zoo.register_source("unlicensed", read)
    with pytest.raises(InputError) as error:
        planned(
            data="unlicensed",
            val_fraction=0.2,
            recipe="smoke",
            teacher=f"{NOT_COMMERCIAL}:pretrained",
            student="resnet8",
            fine_tune=True,
            licence="permissive",
        )
    teacher, data = error.value.problems
    assert re.match(rf"licence: .* {NOT_COMMERCIAL}\.\S+ is under CC-BY-NC-4.0, expected Apache-2.0", teacher)
    assert data.startswith("licence: data unlicensed: its licence is unknown")
    assert planned(data="unlicensed", teacher="resnet14", student="resnet8", licence="permissive,unknown").students


@pytest.mark.parametrize("words", ["permisive", "unknown", "permissive,MIT"])
def test_words_that_name_no_licences_are_refused(words):
    with pytest.raises(InputError, match=r"licence"):
        bench_config({"licence": words}, None)


@pytest.mark.parametrize(
    "front", ["released: 2024-13-45", "a: " + "[" * 3000, "license: [mit]", ": : :"], ids=["no such day", "deep", "a list", "no YAML"]
)
def test_a_card_that_cannot_be_read_names_no_licence(tmp_path, front):
    (tmp_path / "README.md").write_text(f"---\nlicense: mit\n{front}\n---\n")
    assert licence_in_card(tmp_path / "README.md") is None


def test_a_card_as_windows_writes_it_names_its_licence(tmp_path):
    (tmp_path / "README.md").write_bytes(b"\xef\xbb\xbf---\r\nlicense: apache-2.0\r\n---\r\ntext\r\n")
    assert licence_in_card(tmp_path / "README.md") == "Apache-2.0"
