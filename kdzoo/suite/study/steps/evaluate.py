"""The step `evaluate`: how well students fit the images that they learned from. Free of torch until it is done."""

from __future__ import annotations

from kdzoo.suite.study.steps.step import Result, Step, Work


class Evaluate(Step):
    """Measure students on the labelled images that they were taught on, without augmentation, and on the test images."""

    def words(self) -> str:
        return f"{self.of} on the labelled images that it was taught on"

    def act(self, work: Work) -> Result:
        from kdzoo.suite.study.steps.networks import finished, metrics

        (folder,) = work.runs
        run = finished(folder, work)
        training, test = run.training, run.splits.test
        return {
            "training": metrics(run.splits.task, run.predict(training), training.targets),
            "last": {"test": metrics(run.splits.task, run.predict(test), test.targets)},
        }
