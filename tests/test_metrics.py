"""Balanced accuracy and calibration error are torchmetrics' to the last bit, and what the definitions say."""

import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

from kdzoo.tasks.metrics import balanced_accuracy, calibration_error


@pytest.mark.parametrize(("images", "classes", "sharpness"), [(1, 2, 1), (7, 10, 3), (359, 10, 8), (1000, 3, 0.1), (500, 100, 30)])
def test_both_are_torchmetrics_bit_for_bit(images, classes, sharpness):
    random = torch.Generator().manual_seed(images)
    probabilities = torch.log_softmax(sharpness * torch.randn(images, classes, generator=random), dim=1).exp()
    probabilities[::5] = torch.eye(classes)[0]  # confidences of exactly 1
    targets = torch.randint(max(classes - 1, 1), (images,), generator=random)  # the last class has no image
    predicted = probabilities.argmax(1)
    theirs = multiclass_accuracy(predicted, targets, num_classes=classes, average="macro", validate_args=False)
    assert balanced_accuracy(predicted, targets, classes) == float(theirs)
    theirs = multiclass_calibration_error(probabilities, targets, num_classes=classes, n_bins=15, validate_args=False)
    assert calibration_error(probabilities, targets, 15) == float(theirs)


def test_a_class_that_is_named_but_has_no_image_counts_as_none_right():
    targets, predicted = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 2])
    assert balanced_accuracy(predicted, targets, 4) == pytest.approx((1 + 0.5 + 0) / 3)


def test_the_calibration_error_of_two_bins_by_hand():
    """Three images at confidence 0.9, of which two are right, and one at 0.6 that is wrong, in ten bins."""
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.6, 0.4]])
    targets = torch.tensor([0, 1, 1, 1])
    assert calibration_error(probabilities, targets, 10) == pytest.approx(3 / 4 * abs(2 / 3 - 0.9) + 1 / 4 * 0.6, abs=1e-6)
