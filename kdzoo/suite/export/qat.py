"""Quantisation-aware training: a student that is fine-tuned with its weights and activations rounded as 8 bits will round them.

torchao puts the rounding into the student's graph (PT2E), the run's teacher says what it should answer, and the weights come back
into the student, which is then quantised like any other (`quantise`).
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.contract.needs import Pass
from kdzoo.data.epoch import EpochPlan
from kdzoo.data.split import Splits
from kdzoo.errors import InputError, WorkFailed
from kdzoo.methods.hinton import hinton
from kdzoo.runs.recipe import Recipe, steps_per_epoch
from kdzoo.suite.export.graph import INPUT, Answers, quietly
from kdzoo.suite.export.student import Student
from kdzoo.training.optim import learning_rate, optimizer

EPOCHS_SHARE, LEAST_STEPS = 0.1, 100
"""how much of the student's own training the fine-tuning is, and how many steps at least"""
LR_SHARE = 0.1
"""its first learning rate, as a share of the student's own; it falls to 0 as half a cosine"""


def require_torchao() -> None:
    """Raise InputError where torchao is not installed."""
    if find_spec("torchao") is None:
        raise InputError("int8: qat needs torchao: pip install torchao")


@dataclass(frozen=True)
class Teaching:
    """Who says what a student should answer: anything with `logits(images)` of uint8 images, and its name in words."""

    network: nn.Module
    name: str


def fine_tune(student: Student, splits: Splits, teacher: nn.Module, seed: int = 0) -> Student:
    """A copy of a student, fine-tuned with rounded weights and activations on views of the training images.

    teacher: anything with `logits(images)` of uint8 images; the loss is KL(teacher || student) at T = 1, without labels. Running
    statistics of batch norm stay as they are. Raises WorkFailed where torch or torchao cannot prepare the network, or the loss
    becomes NaN: torchao divides by the scales of batch norm, so that a scale of exactly 0 does.
    """
    tuned = copy.deepcopy(student)
    scores = Answers(tuned, pixels=False).eval().requires_grad_()
    plan = EpochPlan(splits, student.recipe, seed, 0, Pass.FIRST)
    example, _ = _batch(plan, torch.arange(2), tuned)
    with quietly():
        try:
            rounded = _with_rounding(scores, example)
        except Exception as error:
            raise WorkFailed(f"{student.spec.name}: torchao cannot prepare it ({type(error).__name__}: {error})") from error
        _train(rounded, tuned, splits, teacher.eval(), seed)
    _take_weights(scores, dict(rounded.named_parameters()))
    return replace(tuned, network=tuned.network.requires_grad_(False))


def _with_rounding(scores: Answers, example: Tensor) -> nn.Module:
    """The graph of a network with fake quantisation at every weight and activation that 8 bits will have.

    Activations are uint8, weights int8 by channel, as `quantise` has them. torchao's own configuration sets a floor under scales
    that rounds channels of small weights to almost nothing; here there is none.
    """
    from torchao.quantization.pt2e import (
        FusedMovingAvgObsFakeQuantize,
        MovingAveragePerChannelMinMaxObserver,
        move_exported_model_to_eval,
    )
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
    from torchao.quantization.pt2e.quantizer import QuantizationSpec
    from torchao.quantization.pt2e.quantizer.utils import QuantizationConfig
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import X86InductorQuantizer

    activations = QuantizationSpec(
        dtype=torch.uint8,
        quant_min=0,
        quant_max=255,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=FusedMovingAvgObsFakeQuantize,
    )
    weights = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=FusedMovingAvgObsFakeQuantize.with_args(observer=MovingAveragePerChannelMinMaxObserver),
    )
    quantizer = X86InductorQuantizer().set_global(QuantizationConfig(activations, activations, weights, None, is_qat=True))
    with warnings.catch_warnings(action="ignore"):
        graph = torch.export.export(scores, (example,), dynamic_shapes={INPUT: {0: torch.export.Dim("batch", min=2)}}).module()
        rounded: nn.Module = prepare_qat_pt2e(graph, quantizer)
        move_exported_model_to_eval(rounded)  # torchao lets batch norm take the statistics of batches, whatever was exported
    return rounded


def tuning_recipe(recipe: Recipe, samples: int) -> Recipe:
    """The recipe of the fine-tuning: the student's own but for its length and its rate."""
    an_epoch = steps_per_epoch(samples, recipe.batch_size, drop_last=recipe.drop_last)
    epochs = max(math.ceil(EPOCHS_SHARE * recipe.epochs), math.ceil(LEAST_STEPS / an_epoch))
    changes: dict[str, Any] = {"epochs": epochs, "lr": LR_SHARE * recipe.lr, "schedule": "cosine", "milestones": (), "warmup": 0.0}
    return recipe.model_copy(update=changes | {"precision": "float32", "ema": None, "dot": None})


def _train(rounded: nn.Module, student: Student, splits: Splits, teacher: nn.Module, seed: int) -> None:
    recipe = tuning_recipe(student.recipe, len(splits.train.targets))
    optimiser = optimizer(recipe, rounded)
    steps = recipe.epochs * steps_per_epoch(len(splits.train.targets), recipe.batch_size, drop_last=recipe.drop_last)
    step = 0
    for epoch in range(recipe.epochs):
        plan = EpochPlan(splits, recipe, seed, epoch, Pass.FIRST)
        for loaded in plan.batches():
            inputs, view = _batch(plan, loaded.positions, student)
            with torch.no_grad():
                answer = teacher.logits(view)  # type: ignore[operator]
            loss = hinton(rounded(inputs), answer, temperature=1.0)
            if not loss.isfinite():
                raise WorkFailed(f"{student.spec.name}: the loss of quantisation-aware training is {loss.item()} at step {step + 1}")
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(recipe, step, steps) * group["lr_factor"]
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if recipe.clip is not None:
                nn.utils.clip_grad_norm_(rounded.parameters(), recipe.clip)
            optimiser.step()
            step += 1


def _batch(plan: EpochPlan, positions: Tensor, student: Student) -> tuple[Tensor, Tensor]:
    """What a student's graph is given for the images at positions, and the images themselves, uint8."""
    view = plan.inputs_at(Pass.FIRST, positions)
    with torch.no_grad():
        return student.body.normalise(view), view


def _take_weights(scores: Answers, trained: Mapping[str, nn.Parameter]) -> None:
    """Give a network the weights of its graph, which bear the same names; those that the graph does not read stay."""
    with torch.no_grad():
        for name, parameter in scores.named_parameters(remove_duplicate=False):
            if name in trained:
                parameter.copy_(trained[name])
