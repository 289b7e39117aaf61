"""The student of a run: fresh with its objective, as a member of a cohort, or trained as it ships."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from kdzoo.contract.build_objective import build_objective
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need
from kdzoo.contract.objective import Deployed, Objective
from kdzoo.contract.shapes import Shapes
from kdzoo.data.dataset import Dataset
from kdzoo.data.policy import CHANNELS
from kdzoo.data.split import Splits
from kdzoo.errors import InputError
from kdzoo.models.build import build_network, draw_weights
from kdzoo.models.measure import NetworkCost, measure_shapes, multiply_accumulates, network_cost
from kdzoo.models.network import Network, Peer
from kdzoo.models.placement import Placement
from kdzoo.models.stages import pair_stages
from kdzoo.models.weights import load_state, read_deployed
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.spec import NetworkSpec, Run
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.member import Member
from kdzoo.training.regularise import refuse_regularisation
from kdzoo.training.run_data import input_shape
from kdzoo.training.run_networks import load_network
from kdzoo.training.run_teacher import load_teacher


def build_student(
    located: LocatedRun, dataset: Dataset, splits: Splits, teacher: Shapes | None, modules: Modules
) -> tuple[Network, Objective]:
    """A fresh student and objective; raises InputError when the method cannot serve the two networks."""
    network = student_network(located, dataset, modules)
    return network, build_run_objective(located, network, student_shapes(located.run, network, dataset, modules), dataset, splits, teacher)


def student_network(located: LocatedRun, dataset: Dataset, modules: Modules) -> Network:
    """A fresh student with the weights that it starts from."""
    run, side = located.run, input_shape(dataset, located.run.recipe)[1]
    return load_network(run.student, dataset, side=side, seed=run.seed, path=located.paths.get("student"), modules=modules, head="fresh")


def student_shapes(run: Run, network: Network, dataset: Dataset, modules: Modules) -> Shapes:
    """What a student's outputs measure, and how a peer of its architecture is made."""
    shape = input_shape(dataset, run.recipe)
    return replace(measure_shapes(network, shape), fresh=partial(new_peer, run.student, dataset, shape[1], modules.get(run.student.name)))


def build_run_objective(
    located: LocatedRun, network: Network, shapes: Shapes, dataset: Dataset, splits: Splits, teacher: Shapes | None
) -> Objective:
    """A fresh objective for a student of these shapes; raises InputError when the method cannot serve the two networks."""
    run = located.run
    _refuse_recipe(run, input_shape(dataset, run.recipe), dataset)
    refuse_regularisation(run.recipe, run.student.name, network)
    stages = pair_stages(shapes, teacher or shapes, run.objective.pairing)  # without a teacher, all of the student's own
    objective = build_objective(
        run.objective,
        shapes,
        teacher,
        stages,
        splits.facts,
        label_smoothing=run.recipe.label_smoothing,
        seed=run.seed,
        terms=located.terms,
        task=splits.task,
        teacher_columns=None if run.teacher is None else run.teacher.columns,
    )
    if run.recipe.ema is not None and objective.deployed(network) is not network:
        raise InputError(f"recipe.ema: {run.objective.label} keeps parts of its method at inference, which no average covers; remove it")
    return objective


def _refuse_recipe(run: Run, shape: tuple[int, int, int], dataset: Dataset) -> None:
    """Raises InputError for what a recipe cannot mean for these images, their task and these methods."""
    recipe, task = run.recipe, dataset.task
    of_classes = {
        "mixup": recipe.mixup is not None,
        "cutmix": recipe.cutmix is not None,
        "label_smoothing": recipe.label_smoothing > 0,
        "head": recipe.head == "probe",
    }
    if task.several:
        del of_classes["label_smoothing"]  # each column's cross-entropy has it
    if task.of_features:
        del of_classes["mixup"], of_classes["cutmix"]  # both networks see the mixed images, and nobody asks what their classes are
    names = [] if task.of_classes else [name for name, value in of_classes.items() if value]
    problems = [f"recipe.{name}: needs targets that are classes, the data's task is {task.name}" for name in names]
    if dataset.holds_maps and (of_pixels := recipe.augment.of_pixels):
        options = ", ".join(f"recipe.augment.{name}" for name in of_pixels)
        problems.append(f"{options}: needs pixels, {dataset.name} has maps; time_shift, time_mask, band_mask and padded crops are for both")
    if dataset.holds_texts:
        views = [f"augment.{name}" for name, value in recipe.augment.model_dump(exclude_defaults=True).items() if value]
        mixes = [name for name in ("mixup", "cutmix") if getattr(recipe, name) is not None]
        problems += [
            f"recipe.{name}: {dataset.name} has texts, of which there is one view and which are not mixed" for name in (*views, *mixes)
        ]
    if run.recipe.augment.cutout > max(shape[1:]):
        problems.append(
            f"recipe.augment.cutout: expected at most {max(shape[1:])}, the side of the images, got {run.recipe.augment.cutout}"
        )
    if recipe.augment.auto_augment is not None and shape[0] not in CHANNELS:
        problems.append(f"recipe.augment.auto_augment: expected images of 1 or 3 channels, which timm's policies take, got {shape[0]}")
    if run.recipe.dot is not None and run.recipe.clip is not None:
        problems.append("recipe.clip: cannot be combined with recipe.dot, which clips neither of its two gradients")
    if run.recipe.mixes:
        reasons = {term.method: REGISTRY.get(term.method).card.refuses_mixing for term in run.objective.all_terms}
        problems += [f"{name}: cannot be trained with recipe.mixup or recipe.cutmix: {why}" for name, why in reasons.items() if why]
    if problems:
        raise InputError(*problems)


def new_peer(spec: NetworkSpec, dataset: Dataset, side: int, module: nn.Module | None) -> Peer:
    """A new network of an architecture with a random start drawn from torch's present stream."""
    seed = int(torch.randint(2**31, ()))
    start = spec.model_copy(update={"start": "random", "weights": None})
    network = build_network(start, channels=dataset.channels, side=side, mean=dataset.mean, std=dataset.std, seed=seed, module=module)
    if module is not None:
        draw_weights(network.model, seed)
    return Peer(network)


def load_trained_student(located: LocatedRun, dataset: Dataset, splits: Splits, modules: Modules) -> nn.Module:
    """The trained student of a finished run as it ships, with `logits(images)`; raises InputError where its weights do not fit."""
    state, its_parts = read_deployed(located.folder.student, located.run.id)
    if not its_parts:
        spec = located.run.student.model_copy(update={"start": f"run:{located.run.id}"})
        side = input_shape(dataset, located.run.recipe)[1]
        return load_network(spec, dataset, side=side, seed=located.run.seed, path=str(located.folder.student), modules=modules)
    teacher = load_teacher(located, dataset, splits.truncate_eval(1), Placement(WorkerOptions(teacher_cache=0)), modules)
    network, objective = build_student(located, dataset, splits, teacher[1] if teacher else None, modules)
    deployed = objective.deployed(network)
    assert isinstance(deployed, Deployed)
    load_state(network.model, state, str(located.folder.student))
    load_state(deployed.module, its_parts, str(located.folder.student))
    return deployed


def deployed_cost(network: Network, objective: Objective, shape: tuple[int, int, int]) -> NetworkCost:
    """Parameters and multiply-accumulates of what is shipped: of the network alone, or with what a method adds and drops."""
    size, deployed = network_cost(network, shape), objective.deployed(network)
    if not isinstance(deployed, Deployed):
        return size
    drops_classifier = not {Need.LOGITS, Need.CLASSIFIER} & set(deployed.method.card.needs.student)
    fewer = sum(p.numel() for p in network.classifier.parameters()) if drops_classifier else 0
    more = sum(p.numel() for p in deployed.module.parameters())
    return NetworkCost(size.parameters - fewer + more, multiply_accumulates(deployed, network, shape))


def build_member(
    located: LocatedRun,
    dataset: Dataset,
    splits: Splits,
    teacher: Shapes | None,
    execution: Placement,
    modules: Modules,
    teacher_weights: str | None = None,
) -> Member:
    network, objective = build_student(located, dataset, splits, teacher, modules)
    size = deployed_cost(network, objective, input_shape(dataset, located.run.recipe))
    return Member(located.run, located.folder, network, size, objective, execution, teacher_weights)
