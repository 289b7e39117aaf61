"""How a GPU computes is set as the options say, recorded, and put back. Torch keeps these settings where there is no GPU too."""

import os
from collections.abc import Iterator

import pytest
import torch

from kdzoo.contract.settings import current_settings, put_back
from kdzoo.errors import InputError
from kdzoo.models.kernels import kernels_of, set_kernels
from kdzoo.runs.options import WorkerOptions
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.run import prepare

GPU = torch.device("cuda")
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@pytest.fixture(autouse=True)
def _settings(monkeypatch) -> Iterator[None]:
    monkeypatch.setenv(WORKSPACE, "")  # so that what a test sets is taken back
    monkeypatch.delenv(WORKSPACE)
    monkeypatch.delenv("KDZOO_LAUNCHER", raising=False)
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


def test_deterministic_kernels_are_taken_as_asked():
    assert kernels_of(GPU)["deterministic"] is False
    set_kernels(WorkerOptions(device="cuda", deterministic=True))
    assert kernels_of(GPU)["deterministic"] is True
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory
    assert os.environ[WORKSPACE] == ":4096:8"


def test_nothing_is_set_or_recorded_of_a_cpu():
    before = current_settings()
    set_kernels(WorkerOptions(device="cpu", tf32=True, deterministic=True))
    assert current_settings() == before
    assert WORKSPACE not in os.environ
    assert kernels_of(torch.device("cpu")) == {"float32": None, "deterministic": None}


# what cuBLAS reads once


def config(folder, **more):
    given = {"data": "digits", "pairs": "mlp_64_64/mlp_32", "recipe": "digits", "limit": 128, "seeds": "1", "methods": "hinton"}
    return bench_config({**given, "results": str(folder), "deterministic": True, **more}, None)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that a plan believes in."""
    monkeypatch.setattr(prepare, "device_of", lambda name: "cuda")


@pytest.fixture
def cuda_in_use(monkeypatch):
    """A process that has initialised CUDA."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)


LATE = "deterministic: this process has initialised CUDA without CUBLAS_WORKSPACE_CONFIG, which cuBLAS reads only once; set"


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("launcher", ["local", "here"])
def test_it_is_set_before_a_plugin_can_use_a_gpu(tmp_path, launcher):
    """In this process for what it trains itself, in the environment for its workers."""
    plugin = tmp_path / "plugin.py"
    plugin.write_text(f"import os\nassert os.environ['{WORKSPACE}'] == ':4096:8'\n")
    prepare.prepare(config(tmp_path, plugin=[str(plugin)], launcher=launcher))
    assert os.environ[WORKSPACE] == ":4096:8"


@pytest.mark.usefixtures("gpu", "cuda_in_use")
def test_a_process_that_trains_on_its_own_gpu_and_has_used_it_without_is_refused_before_any_work(tmp_path):
    with pytest.raises(InputError, match=LATE):
        prepare.prepare(config(tmp_path, launcher="here"))
    assert WORKSPACE not in os.environ


@pytest.mark.usefixtures("cuda_in_use")
def test_a_worker_that_has_used_a_gpu_without_refuses_its_job():
    with pytest.raises(InputError, match=LATE):
        set_kernels(WorkerOptions(device="cuda", deterministic=True))
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.usefixtures("gpu", "cuda_in_use")
def test_workers_start_without_a_gpu_in_use_whatever_their_parent_has_done(tmp_path):
    """What the parent's environment said later on would tell nothing of this process."""
    prepare.prepare(config(tmp_path, launcher="local"))
    assert WORKSPACE not in os.environ


@pytest.mark.usefixtures("gpu", "cuda_in_use")
def test_what_was_set_before_python_started_is_enough(tmp_path, monkeypatch):
    monkeypatch.setenv(WORKSPACE, ":16:8")
    prepare.prepare(config(tmp_path, launcher="here"))
    set_kernels(WorkerOptions(device="cuda", deterministic=True))
    assert os.environ[WORKSPACE] == ":16:8"


@pytest.mark.usefixtures("gpu")
def test_a_value_with_which_products_do_not_repeat_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(WORKSPACE, ":0:0")
    with pytest.raises(InputError) as caught:
        prepare.prepare(config(tmp_path))
    assert caught.value.problems == ("deterministic: expected CUBLAS_WORKSPACE_CONFIG unset or one of :4096:8, :16:8, got ':0:0'",)


@pytest.mark.usefixtures("cuda_in_use")
def test_nothing_is_refused_or_set_where_a_cpu_computes(tmp_path):
    prepare.prepare(config(tmp_path, launcher="here", device="cpu"))
    assert WORKSPACE not in os.environ
