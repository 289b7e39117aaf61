"""How a GPU computes is set as the options say, recorded, and put back. Torch keeps these settings where there is no GPU too."""

from collections.abc import Iterator

import pytest
import torch

from kdzoo.contract.settings import current_settings, put_back
from kdzoo.models.kernels import kernels_of, set_kernels
from kdzoo.runs.options import WorkerOptions

GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def _settings(monkeypatch) -> Iterator[None]:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = current_settings()
    yield
    put_back(before)
    assert current_settings() == before


@pytest.mark.parametrize(
    ("tf32", "convolutions", "products"),
    [(None, torch.backends.cudnn.conv.fp32_precision, "none"), (True, "tf32", "tf32"), (False, "ieee", "ieee")],
)
def test_tf32_is_taken_as_asked_and_left_to_torch_unless_asked(tf32, convolutions, products):
    set_kernels(WorkerOptions(device="cuda", tf32=tf32))
    assert torch.backends.cudnn.conv.fp32_precision == convolutions
    assert torch.backends.cuda.matmul.fp32_precision == products
    words = {"tf32": "TF32", "ieee": "float32", "none": "float32"}
    assert kernels_of(GPU)["float32"] == f"convolutions in {words[convolutions]}, products in {words[products]}"


def test_deterministic_kernels_are_taken_as_asked(monkeypatch):
    assert kernels_of(GPU)["deterministic"] is False
    set_kernels(WorkerOptions(device="cuda", deterministic=True))
    assert kernels_of(GPU)["deterministic"] is True
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory


def test_nothing_is_set_or_recorded_of_a_cpu():
    before = current_settings()
    set_kernels(WorkerOptions(device="cpu", tf32=True, deterministic=True))
    assert current_settings() == before
    assert kernels_of(torch.device("cpu")) == {"float32": None, "deterministic": None}
