"""PHI-S against the published program's values, and by what it promises: unit variances, distances but for one factor."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kdzoo.errors import InputError
from kdzoo.models.phis import hadamard, standardise

GOLDEN = Path(__file__).resolve().parent.parent / "golden3"
CASES = {case["id"]: case for case in json.loads((GOLDEN / "published.json").read_text())}
ARRAYS = np.load(GOLDEN / "published.npz")


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["name"] == "hadamard"])
def test_hadamards_matrix_is_the_published_one(name):
    np.testing.assert_allclose(hadamard(CASES[name]["hyperparameters"]["width"]).numpy(), ARRAYS[f"{name}/expected_matrix"], atol=1e-6)


@pytest.mark.parametrize("width", [1, 2, 4, 12, 20, 28, 96, 192, 384, 768, 1024, 1152, 1280])
def test_hadamards_matrix_is_a_rotation_with_entries_of_one_size(width):
    matrix = hadamard(width)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(width, dtype=torch.float64))
    torch.testing.assert_close(matrix.abs(), torch.full((width, width), width**-0.5, dtype=torch.float64))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["name"] == "phis"])
def test_the_standardisation_is_the_published_one(name):
    features, vectors, mean, matrix, output, scale = (
        torch.tensor(ARRAYS[f"{name}/{key}"])
        for key in ("teacher_embedding", "expected_eigenvectors", "expected_mean", "expected_matrix", "expected_output", "expected_scale")
    )
    own = standardise(features, rotation=vectors)
    torch.testing.assert_close(own.mean, mean)
    assert own.scale == pytest.approx(float(scale))
    torch.testing.assert_close(own.matrix, matrix, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(own.apply(features), output, rtol=1e-6, atol=1e-8)


def test_every_channel_has_variance_1_and_distances_are_divided_by_the_scale():
    features = torch.randn(300, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * torch.logspace(-2, 2, 24) + 5
    own = standardise(features)
    standardised = own.apply(features)
    torch.testing.assert_close(standardised.var(0), torch.ones(24, dtype=torch.float64))
    torch.testing.assert_close(torch.cdist(standardised, standardised), torch.cdist(features, features) / own.scale, rtol=1e-6, atol=1e-6)


def test_a_width_without_a_matrix_and_features_without_a_scale_are_refused():
    with pytest.raises(InputError, match="no Hadamard matrix is known here for a width of 52"):
        hadamard(52)
    with pytest.raises(InputError, match="all alike"):
        standardise(torch.ones(5, 4))
