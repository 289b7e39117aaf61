"""The step `calibrate`: biases for classes that the transfer set lacked. Free of torch until it is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from kdzoo.data.known import DATA
from kdzoo.errors import InputError
from kdzoo.runs.fields import Integer
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.refit import validation_share
from kdzoo.suite.study.steps.step import Result, Step, Work, joined
from kdzoo.suite.study.which import as_tuple


class Calibrate(Step):
    """Choose the biases of some classes after training (`kdzoo.calibrate_biases`), never on test images.

    classes: their numbers. labels: `teacher`, the training images of all classes with the teacher's predictions as targets, no
    label being read; `validation`, held-out training images with their labels.
    """

    classes: Annotated[tuple[Annotated[Integer, Field(ge=0)], ...], BeforeValidator(as_tuple), Field(min_length=1)]
    labels: Literal["teacher", "validation"]

    def problems(self, bench: BenchConfig, seeds: Sequence[int]) -> list[str]:
        problems = []
        if self.labels == "validation" and not validation_share(bench):
            problems.append(f"labels: stage {self.of.stage} holds out no validation images (val_fraction is 0); expected teacher")
        known = DATA.find(bench.data)
        if known is not None and known.classes is not None and (strange := [one for one in self.classes if one >= known.classes]):
            problems.append(f"classes: expected numbers from 0 to {known.classes - 1}, got {joined(strange)}")
        return problems

    def words(self) -> str:
        classes = f"the bias{'es' * (len(self.classes) > 1)} of class{'es' * (len(self.classes) > 1)} {joined(self.classes)}"
        where = {
            "teacher": "all training images as the teacher labels them",
            "validation": "held-out training images with their labels",
        }
        return f"{classes} in {self.of}, chosen on {where[self.labels]}"

    def act(self, work: Work) -> Result:
        from kdzoo.suite.study.steps.networks import finished, metrics
        from kdzoo.training.calibration import calibrate_biases

        (folder,) = work.runs
        run = finished(folder, work)
        if self.labels == "teacher":
            part, targets = run.all_training, run.ask_teacher(run.all_training).argmax(1)
        else:
            if run.splits.val is None:
                raise InputError(f"{folder.id}: holds out no validation images to choose biases on")
            part, targets = run.splits.val, run.splits.val.targets
        log_probs, test = run.predict(part), run.predict(run.splits.test)
        biases = calibrate_biases(log_probs, targets, self.classes)
        bias = log_probs.new_zeros(log_probs.shape[1])
        bias[list(self.classes)] = biases.to(bias)
        chosen, calibrated = (log_probs + bias).log_softmax(1), (test + bias).log_softmax(1)
        return {
            "biases": dict(zip(map(str, self.classes), biases.tolist(), strict=True)),
            "chosen_on": {"before": metrics(run.splits.task, log_probs, targets), "after": metrics(run.splits.task, chosen, targets)},
            "before": {"test": metrics(run.splits.task, test, run.splits.test.targets)},
            "last": {"test": metrics(run.splits.task, calibrated, run.splits.test.targets)},
        }
