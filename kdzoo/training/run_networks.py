"""The networks that a run's specification names, with their weights from where these lie."""

from __future__ import annotations

from pathlib import Path

from kdzoo.data.dataset import Dataset
from kdzoo.errors import InputError
from kdzoo.models.agglomerate import AGGLOMERATE
from kdzoo.models.build import build_network
from kdzoo.models.ensemble import Ensemble
from kdzoo.models.examine import Head
from kdzoo.models.join import read_joined
from kdzoo.models.network import Network
from kdzoo.models.request import ensemble_ids
from kdzoo.models.text_names import is_text_network
from kdzoo.models.weights import file_sha256
from kdzoo.runs.spec import NetworkSpec
from kdzoo.runs.store import RunFolder, teacher_store
from kdzoo.training.located import Modules, WeightFiles


def load_network(
    spec: NetworkSpec, dataset: Dataset, *, side: int, seed: int, path: WeightFiles, modules: Modules, head: Head = "kept"
) -> Network:
    """A network with the weights its specification names; `path` says where files or runs' weights were found."""
    if members := members_of(spec, path):
        networks = [load_network(one, dataset, side=side, seed=seed, path=file, modules=modules) for one, file in members]
        return Ensemble(networks)
    assert not isinstance(path, list), "one network has one file"
    refuse_other_samples(spec, dataset)
    weights = weights_path(spec, path)
    if spec.name == AGGLOMERATE:
        if head == "fresh" or spec.classes or weights is None:
            raise InputError(f"network {spec.name}: teachers joined by `kdzoo teachers join` teach with --task features, from their file")
        return read_joined(weights, channels=dataset.channels, side=side, image_size=spec.image_size)
    return build_network(
        spec,
        channels=dataset.channels,
        side=side,
        mean=dataset.mean,
        std=dataset.std,
        seed=seed,
        head=head,
        weights=weights,
        module=modules.get(spec.name),
    )


def refuse_other_samples(spec: NetworkSpec, dataset: Dataset) -> None:
    """Raises InputError for a network of images where the data are texts, and the other way round."""
    of_texts = is_text_network(spec.name)
    if of_texts != dataset.holds_texts:
        hint = "" if of_texts else "; a network of texts is hf:FOLDER"
        takes = "texts" if of_texts else "images"
        raise InputError(f"network {spec.name}: takes {takes}, but {dataset.name} has {dataset.samples_in_words}{hint}")


def members_of(spec: NetworkSpec, path: WeightFiles) -> list[tuple[NetworkSpec, str | None]]:
    """The networks of an ensemble, whose specification names several runs, each with the file of its weights; none for one network.

    A member whose file is not there is looked for among the kept teachers. Raises InputError where it is not there either.
    """
    kind, _, ids = spec.start.partition(":")
    run_ids = ensemble_ids(ids) if kind == "run" else []
    if len(run_ids) < 2:
        return []
    files = path if isinstance(path, list) else [None] * len(run_ids)
    return [_member(run_id, file) for run_id, file in zip(run_ids, files, strict=True)]


def _member(run_id: str, file: str | None) -> tuple[NetworkSpec, str | None]:
    """One network of an ensemble as its run made it, and the file of its weights."""
    beside = RunFolder(Path(file).parent) if file is not None and Path(file).is_file() else None
    folder = beside if beside is not None and beside.id == run_id else teacher_store().run(run_id)
    return folder.read_plan()[0].student.model_copy(update={"start": f"run:{run_id}"}), file


def weights_path(spec: NetworkSpec, path: str | None) -> Path | None:
    """The file that holds a network's weights: as planned, else among the kept teachers; None where none is read.

    Raises InputError for a file that is gone, or whose content is not the one that the run's id names.
    """
    kind, _, name = spec.start.partition(":")
    if kind not in ("file", "run"):
        return None
    for candidate in [Path(path)] if path else []:
        if candidate.is_file():
            if kind == "file" and (digest := file_sha256(candidate)) != name:
                raise InputError(f"{spec.name}: {candidate} is not the file that was planned (sha256 {name[:12]}..., now {digest[:12]}...)")
            return candidate
    of_teacher = teacher_store().run(name).student
    if kind == "run" and of_teacher.is_file():
        return of_teacher
    where = path or "the kept teachers"
    raise InputError(f"{spec.name}: its weights ({spec.start}) have moved: looked in {where}")
