"""The step `average`: an ensemble of networks, evaluated. Free of torch until it is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from kdzoo.runs.fields import Integer
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.study.steps.step import Result, Step, Work


class Average(Step):
    """Evaluate the mean of several networks' probabilities.

    size: how many networks are one ensemble, the first of the seeds being the first ensemble, and so on; all of them are
    one unless given.
    """

    size: Annotated[Integer, Field(ge=2)] | None = None

    def groups(self, seeds: Sequence[int]) -> dict[int, tuple[int, ...]]:
        size = self.size or len(seeds)
        return {number: tuple(seeds[start : start + size]) for number, start in enumerate(range(0, len(seeds), size))}

    @property
    def single(self) -> bool:
        return self.size is None

    def problems(self, bench: BenchConfig, seeds: Sequence[int]) -> list[str]:
        if self.size is not None and len(seeds) % self.size:
            return [f"size: {len(seeds)} seeds do not make ensembles of {self.size}"]
        return []

    def words(self) -> str:
        return f"the mean probabilities of {f'each {self.size} seeds' if self.size else 'all seeds'} of {self.of}"

    def act(self, work: Work) -> Result:
        import torch

        from kdzoo.suite.study.steps.networks import finished, metrics

        runs = [finished(folder, work) for folder in work.runs]
        task, test = runs[0].splits.task, runs[0].splits.test
        log_probs = torch.stack([run.predict(test) for run in runs])
        mean = log_probs.double().logsumexp(0) - torch.tensor(len(runs), dtype=torch.float64).log()
        members = [metrics(task, one, test.targets) for one in log_probs]
        return {
            "networks": len(runs),
            "members": {"test": {"top1": sum(one["top1"] for one in members) / len(members), "n": len(test.targets)}},
            "last": {"test": metrics(task, mean.float(), test.targets)},
        }
