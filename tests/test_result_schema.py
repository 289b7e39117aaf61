"""result.json has one declaration: committed results are read by it, and the schema and the page are made from it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from build_pages import schema_text
from result_page import result_page

from kdzoo.runs.cpu import model_in
from kdzoo.runs.environment import environment, torch_build
from kdzoo.runs.result_file import read_result
from kdzoo.runs.results import SCHEMA, SCHEMA_FILE, json_schema, result_model
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.features import FEATURES
from kdzoo.tasks.task import Metric

ROOT = Path(__file__).resolve().parent.parent


def test_every_committed_result_is_read_whichever_schema_it_has():
    files = sorted((ROOT / "results").rglob("runs/*/result.json"))
    assert len(files) > 200
    for file in files:
        read_result(json.loads(file.read_text()), file.parent.name)


def test_a_new_metric_makes_no_earlier_result_unreadable_and_is_asked_of_new_ones():
    """Of a metric without `since`, every result on disk would count as damaged and be trained again."""
    spread = Metric("spread", "largest minus smallest probability", "spread", lambda case: 1.0, since=SCHEMA)
    model = result_model(replace(CLASSIFICATION, name="wider", metrics=(*CLASSIFICATION.metrics, spread)))
    results = [json.loads(file.read_text()) for file in sorted((ROOT / "results").rglob("runs/*/result.json"))]
    of_classes = [result for result in results if result.get("task") != FEATURES.name]
    earlier = [result for result in of_classes if 1 < result.get("schema", 1) < SCHEMA]
    assert earlier
    for result in earlier:
        assert model.model_validate({**result, "task": "wider"}).last.test.spread is None
    written = model.model_json_schema(mode="serialization")["$defs"]["Metrics"]
    assert "spread" in written["required"]
    with pytest.raises(AssertionError, match="raise SCHEMA"):
        result_model(replace(CLASSIFICATION, metrics=(*CLASSIFICATION.metrics, replace(spread, since=SCHEMA + 1))))


def test_the_committed_schema_and_page_are_those_that_are_generated():
    assert SCHEMA_FILE.read_text() == schema_text(), "run python docs/build_pages.py --only pages"
    assert (ROOT / "docs" / "results.md").read_text() == result_page(json_schema()), "run python docs/build_pages.py --only pages"


def test_the_schema_asks_for_every_field_and_refuses_a_share_above_one():
    schema = json_schema()
    for part in (schema, *schema["$defs"].values()):
        assert set(part["required"]) == set(part["properties"])
    assert schema["$defs"]["Metrics"]["properties"]["top1"]["maximum"] == 1
    assert {"cpu", "cpu_capability", "torch_build"} <= set(schema["$defs"]["Environment"]["required"])
    assert "weights_digest" in schema["$defs"]["TeacherResult"]["required"]
    assert "accuracy_per_class" in schema["$defs"]["MetricsByClass"]["required"]


def test_a_build_of_torch_is_told_without_flags_and_without_what_the_machine_decides():
    text = (
        "PyTorch built with:\n  - GCC 13.3\n  - Intel(R) MKL-DNN v3.12.0 (Git Hash 80afa)\n  - CPU capability usage: AVX2\n"
        "  - Build settings: BLAS_INFO=mkl, CXX_FLAGS= -O2 \n"
    )
    assert torch_build(text, "5c48869") == "commit 5c48869; GCC 13.3; Intel(R) MKL-DNN v3.12.0 (Git Hash 80afa)"
    assert torch_build("", None) == "commit unknown"


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("processor\t: 0\nmodel\t\t: 49\nmodel name\t: AMD EPYC 7R32\nflags\t: fpu\n\nprocessor\t: 1\n", "AMD EPYC 7R32 (model 49)"),
        ("cpu family\t: 6\nmodel\t\t: 207\nmodel name\t: Intel(R) Xeon(R) Processor\n", "Intel(R) Xeon(R) Processor (family 6, model 207)"),
        ("processor\t: 0\nCPU implementer\t: 0x41\n", None),
    ],
)
def test_the_cpus_model_is_the_one_that_linux_names(text, model):
    assert model_in(text) == model


def test_the_environment_names_this_cpu_and_this_torch():
    found = environment(torch.device("cpu"), 3)
    assert found["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert str(torch.version.git_version) in found["torch_build"]
    assert found["threads"] == 3
