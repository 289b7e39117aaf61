"""benchmarks/nccl.py: it compares on a CPU as it would on GPUs, and says by its exit status how that came out."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import nccl


@pytest.mark.slow
def test_two_processes_by_gloo_are_equal_up_to_rounding_and_no_more(place, capsys):
    assert nccl.main(["--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert "2 processes by gloo beside one" in told
    rows = [line for line in told.splitlines() if line.startswith("| ") and "-" in line and "---" not in line]
    assert sorted(row.split()[1].partition("-")[0] for row in rows if "largest" not in row) == ["at", "crd", "hinton", "none", "rkd", "sp"]
    assert not any(row.endswith(" 0.0e+00 |") for row in rows), "two processes sum in another order"


def test_fewer_gpus_than_processes_are_no_comparison(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert nccl.main([]) == 2
    assert "expected 2 GPUs" in capsys.readouterr().out


def test_a_difference_beyond_the_tolerance_and_a_nan_are_told_by_the_status(tmp_path, monkeypatch, capsys):
    values = torch.linspace(-1, 1, 5)
    save_file({"weight": values}, tmp_path / "one")
    for change, expected in ((1e-4, 0), (1e-2, 1), (float("nan"), 1)):
        shutil.copy(tmp_path / "one", tmp_path / "other")
        save_file({"weight": load_file(tmp_path / "other")["weight"] + change}, tmp_path / "other")
        found = nccl.difference(tmp_path / "other", tmp_path / "one")
        monkeypatch.setattr(nccl, "train", lambda *_: None)
        monkeypatch.setattr(nccl, "compare", lambda *_, found=found: {"x-1": found})
        assert nccl.main(["--device", "cpu"]) == expected
    assert capsys.readouterr().out.count("NOT EQUAL") == 2
