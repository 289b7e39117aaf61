"""What `import kdzoo` offers: the public names alone, losses as functions, a projector."""

import pytest
import torch
import torch.nn.functional as F

import kdzoo
from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import StageShape


def test_the_public_names_alone_are_listed_and_each_is_there():
    assert dir(kdzoo) == sorted(kdzoo.__all__)
    assert all(getattr(kdzoo, name) is not None for name in dir(kdzoo))
    assert callable(kdzoo.projector)


def test_rkd_has_its_published_weights_by_default():
    student, teacher = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(0))
    published = kdzoo.functional.rkd(student, teacher, distance_weight=25.0, angle_weight=50.0)
    assert torch.equal(kdzoo.functional.rkd(student, teacher), published)
    assert (create_method("rkd").distance_weight, create_method("rkd").angle_weight) == (25.0, 50.0)


def test_crd_on_embeddings_says_what_to_use_instead():
    embeddings = torch.randn(2, 8, 5)
    with pytest.raises(kdzoo.InputError, match=r"expected scores, positive \(B,\) and negatives \(B, K\)") as caught:
        kdzoo.functional.crd(*embeddings)
    assert 'kdzoo.Distiller(student, teacher, "crd", data=...)' in str(caught.value)
    scores = torch.zeros(4), torch.zeros(4, 6)
    expected = -(torch.log(torch.tensor(1 / (1 + 0.5))) + 6 * torch.log(torch.tensor(0.5 / (1 + 0.5))))  # h(1) = 1 / (1 + K / N)
    assert kdzoo.functional.crd(*scores, samples=12).item() == pytest.approx(expected.item())


def test_a_projector_of_widths_is_a_linear_layer_in_float32():
    made = kdzoo.projector(5, 8)
    x = torch.randn(3, 5)
    assert torch.equal(made(x), F.linear(x, *made.parameters()))
    assert made(x.bfloat16()).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert made(x).dtype == torch.float32


@pytest.mark.parametrize(("student", "teacher"), [((8, 8), (4, 4)), ((2, 2), (4, 4)), ((4, 4), (4, 4)), ((8, 2), (4, 4))])
def test_a_projector_of_stages_gives_the_teachers_shape(student, teacher):
    made = kdzoo.projector(StageShape(5, *student, 2), StageShape(7, *teacher, 2))
    x = torch.randn(3, 5, *student)
    assert made(x).shape == (3, 7, *teacher)
    if student == (8, 8):
        assert torch.allclose(made(x), F.conv2d(F.avg_pool2d(x, 2), *made.parameters()), atol=1e-6)


def test_a_width_beside_a_stage_is_refused():
    with pytest.raises(TypeError, match="expected two widths or two stages, got 5 and "):
        kdzoo.projector(5, StageShape(7, 4, 4, 2))
