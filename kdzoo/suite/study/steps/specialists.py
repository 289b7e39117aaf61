"""The step `specialists`: a generalist, and networks that know a few classes each. Free of torch until it is done."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from kdzoo.data.known import DATA
from kdzoo.errors import InputError
from kdzoo.runs.canonical import canonical_json
from kdzoo.runs.fields import Count, Integer, Number
from kdzoo.runs.seals import OWNER, DamagedFile, read_tensors, tensors_digest, write_tensors
from kdzoo.runs.spec import Run
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.recipe_files import recipe_file
from kdzoo.suite.study.steps.step import Result, Step, Work, network_file
from kdzoo.text import number_of
from kdzoo.training.specialist_recipe import unused_keys

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdzoo.data.dataset import Subset
    from kdzoo.models.committee import Committee
    from kdzoo.models.network import Network
    from kdzoo.suite.study.steps.networks import Finished


CORRECTION = "correction"
"""of the dustbin's logit, beside the weights of a specialist that was trained before an interruption"""


class Specialists(Step):
    """Train specialists from a student, the generalist, and combine them at test time (Hinton et al. 2015, section 5).

    count: how many. size: the classes of each, found by K-means on the covariance of the generalist's predictions of its training
    images. epochs, lr: of a specialist, by the student's recipe otherwise; half of the images of an epoch are of its own
    classes. The network of all of them together may teach a later stage.
    """

    teaches: ClassVar[bool] = True
    count: Count
    size: Annotated[Integer, Field(ge=2)]
    epochs: Count
    lr: Annotated[Number, Field(gt=0)]

    @property
    def networks(self) -> int:
        return 1 + self.count

    def problems(self, bench: BenchConfig, seeds: Sequence[int]) -> list[str]:
        transfer_keys = [key for key in ("transfer_classes", "transfer_data") if getattr(bench, key) is not None]
        if bench.label_fraction < 1:
            transfer_keys.append("label_fraction")
        problems = (
            [f"of: specialists learn from labels of all classes, and stage {self.of.stage} has {', '.join(transfer_keys)}"]
            if transfer_keys
            else []
        )
        known = DATA.find(bench.data)
        if known is not None and known.classes is not None:
            problems += self._too_many(known.classes)
        with suppress(InputError):  # told with the faults of its bench
            changes = {key.removeprefix("recipe."): value for key, value in bench.set.items() if key.startswith("recipe.")}
            problems += [f"of: {problem}" for problem in unused_keys(recipe_file(bench.recipe).resolve("", changes))]
        return problems

    def _too_many(self, classes: int) -> list[str]:
        problems = [f"count: expected 1 to {classes}, one for each class at most, got {self.count}"] if self.count > classes else []
        if self.size >= classes:
            problems.append(f"size: expected 2 to {classes - 1} of the {classes} classes, got {self.size}")
        return problems

    def words(self) -> str:
        trained = f"each trained for {number_of(self.epochs, 'epoch')} at a rate of {self.lr:g}"
        return f"{self.count} specialists of {self.size} classes from {self.of}, {trained}"

    def act(self, work: Work) -> Result:
        import torch

        from kdzoo.models.committee import Committee
        from kdzoo.models.network import Network
        from kdzoo.models.specialists import confusable_classes
        from kdzoo.models.weights import save_student
        from kdzoo.suite.study.steps.networks import finished
        from kdzoo.training.specialise import committee, train_specialist

        (folder,) = work.runs
        run = finished(folder, work)
        generalist, plan = run.student.to(run.device).eval(), run.located.run
        if not isinstance(generalist, Network):
            raise InputError(f"{folder.id}: ships parts of its method with the student, which a specialist cannot start from")
        training = run.all_training
        sets = confusable_classes(run.predict(training), self.count, self.size, seed=work.seed)
        recipe = plan.recipe.model_copy(update={"epochs": self.epochs, "lr": self.lr})
        if problems := unused_keys(recipe):
            raise InputError(*problems)
        trained = []
        for number, classes in enumerate(sets, start=1):
            names = ", ".join(run.dataset.classes[label] for label in classes)
            work.note(f"specialist {number} of {self.count}: {names}")
            file = work.parts / f"specialist-{number}.safetensors"
            owner = _owner(generalist, classes, plan.model_copy(update={"recipe": recipe}), work)
            if (member := _kept_specialist(file, owner, generalist, classes, work.note)) is None:
                member = train_specialist(generalist, training, classes, recipe, plan.seed)
                write_tensors(file, {**member[0].state_dict(), CORRECTION: torch.tensor(member[1], dtype=torch.float64)}, {OWNER: owner})
            trained.append(member)
        together, name = committee(generalist, plan.student.name, sets, trained)
        work.folder.mkdir(parents=True, exist_ok=True)
        save_student(together, network_file(work.folder, work.seed), {"architecture": name})
        assert isinstance(together.model, Committee)
        result: Result = {"classes": [list(classes) for classes in sets], **_on(run, together, together.model, run.splits.test, "test")}
        if run.splits.val is not None:
            result |= {"validation": _on(run, together, together.model, run.splits.val, "val")}
        return result


def _owner(generalist: Network, classes: Sequence[int], run: Run, work: Work) -> str:
    """What decides the weights of a specialist, as one word; `run` has its recipe."""
    decides = {
        "generalist": tensors_digest(generalist.state_dict()),
        "classes": list(classes),
        "run": run.model_dump(mode="json"),
        "version": Specialists.version,
        "device": work.device,
        "threads": work.threads,
    }
    return hashlib.sha256(canonical_json(decides).encode()).hexdigest()


def _kept_specialist(
    file: Path, owner: str, generalist: Network, classes: Sequence[int], note: Callable[[str], None]
) -> tuple[nn.Module, float] | None:
    """A specialist that an interrupted step left in a file, with its correction; None, and a note, where it is not this one."""
    from kdzoo.training.specialise import fresh_specialist

    try:
        tensors, _ = read_tensors(file, owner)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        note(f"{error}; the specialist is trained again")
        return None
    correction = float(tensors.pop(CORRECTION))
    model = fresh_specialist(generalist, classes)
    model.load_state_dict(tensors)
    return model.eval(), correction


def _on(run: Finished, together: Network, model: Committee, part: Subset, name: str) -> dict[str, Any]:
    """What the generalist alone and all together come to on a part of the data, also by how many specialists know an image's class."""
    from kdzoo.models.predict import predict
    from kdzoo.models.specialists import active_specialists, membership
    from kdzoo.suite.study.steps.networks import metrics

    alone, all_of_them = run.predict(part), predict(together, part, run.located.run.recipe.augment, run.device)
    covering = membership(model.sets, alone.shape[1]).sum(0)[part.targets]
    active = active_specialists(alone, model.sets).sum(1)
    counts = sorted(set(covering.tolist()))
    return {
        "generalist": {name: metrics(run.splits.task, alone, part.targets)},
        "last": {name: metrics(run.splits.task, all_of_them, part.targets)},
        "asked": float(active.double().mean()),
        "coverage": {str(count): _both(alone, all_of_them, part.targets, covering == count) for count in counts},
        "covered": _both(alone, all_of_them, part.targets, covering > 0),
    }


def _both(alone: Tensor, together: Tensor, targets: Tensor, chosen: Tensor) -> dict[str, Any]:
    """The accuracies of some images; both None where there are none."""
    right = [one[chosen].argmax(1) == targets[chosen] for one in (alone, together)]
    before, after = (float(one.double().mean()) if len(one) else None for one in right)
    return {"images": int(chosen.sum()), "generalist": {"top1": before}, "together": {"top1": after}}
