"""A trained student with what its users have to know, from the folder of its run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdzoo.contract.objective import Deployed
from kdzoo.data.dataset import Dataset
from kdzoo.data.known import folder_of
from kdzoo.data.split import Splits
from kdzoo.errors import InputError
from kdzoo.models.network import Network
from kdzoo.models.weights import metadata_of
from kdzoo.runs.licences import Licensed, distilled_words, list_text
from kdzoo.runs.recipe import Recipe
from kdzoo.runs.seals import DIGEST
from kdzoo.runs.spec import NetworkSpec, Run
from kdzoo.runs.store import RunFolder
from kdzoo.suite.report.licences import licences_of
from kdzoo.suite.report.records import read_record
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.run_data import load_run_data
from kdzoo.training.run_student import load_trained_student

WRITTEN_ANEW = (DIGEST, "input")
"""metadata of kept weights that every file has of its own"""


@dataclass(frozen=True)
class Student:
    """A trained student as it ships.

    network: in evaluation mode; a Deployed where the student ships with parts of its method. metadata: what its weights say
    of themselves. origin: from what it was made, in words. from_files: whether it was trained on image files.
    """

    network: Network | Deployed
    spec: NetworkSpec
    dataset: Dataset
    recipe: Recipe
    metadata: Mapping[str, str]
    origin: str
    from_files: bool

    @property
    def embeds(self) -> bool:
        """Whether it is a backbone, which gives embeddings instead of class scores."""
        return self.dataset.task.of_features

    @property
    def body(self) -> Network:
        """The student's network, without what its method adds to it."""
        body = self.network.network if isinstance(self.network, Deployed) else self.network
        assert isinstance(body, Network)
        return body


def load_student(located: LocatedRun, image_cache: int | None = None) -> tuple[Student, Splits]:
    """The student of a finished run, and the images of its data (`read_student`).

    Raises InputError too for one that no export can hold, which reads image files and names one class or gives one embedding.
    """
    student, splits = read_student(located, image_cache)
    folder, dataset = located.folder, student.dataset
    if dataset.holds_maps or dataset.holds_texts or dataset.task.several:
        of_samples = f"{dataset.samples_in_words}, which no image file holds"
        what = of_samples if dataset.holds_maps or dataset.holds_texts else f"several columns of targets, {dataset.task.name}"
        raise InputError(
            f"{folder.id}: trained on {what}: an export reads image files and names one class; its weights are {folder.student}"
        )
    return student, splits


def read_student(located: LocatedRun, image_cache: int | None = None) -> tuple[Student, Splits]:
    """The student of a finished run, and the images of its data.

    image_cache: as `folder.load_folder` takes it.
    Raises InputError for a run that is not done, whose weights were not kept, or whose network exists in one process of
    Python alone.
    """
    folder = located.folder
    state = folder.state()
    if state != "done":
        raise InputError(f"{folder.id}: not finished ({state}): `kdzoo run {shlex.quote(str(folder.path))}` trains it")
    if not folder.student.is_file():
        again = shlex.quote(str(folder.path))
        raise InputError(
            f"{folder.student}: no such file; the weights of this run are not kept here. To train it again, which keeps them: "
            f"rm {again}/result.json; kdzoo run {again}"
        )
    if located.run.student.name.startswith("module:"):
        name = located.run.student.name
        raise InputError(f"{folder.id}: its student is a module given from Python ({name}), which no other process can build")
    dataset, splits = load_run_data(located, image_cache)
    network = load_trained_student(located, dataset, splits, Modules()).eval()
    assert isinstance(network, Network | Deployed)
    return student_of(located, network, dataset, _kept_metadata(folder)), splits


def student_of(located: LocatedRun, network: Network | Deployed, dataset: Dataset, metadata: Mapping[str, str]) -> Student:
    """A run's student as it ships, from its network in evaluation mode and what its weights say of themselves."""
    things = licences_of([read_record(located.folder)])
    return Student(
        network=network,
        spec=located.run.student,
        dataset=dataset,
        recipe=located.run.recipe,
        metadata={**metadata, "licences": list_text(things)},
        origin=origin_words(located.run, things),
        from_files=folder_of(str(located.paths.get("data", ""))) is not None,
    )


def _kept_metadata(folder: RunFolder) -> dict[str, str]:
    return {key: value for key, value in metadata_of(folder.student).items() if key not in WRITTEN_ANEW}


def origin_words(run: Run, things: Sequence[Licensed]) -> str:
    """From what a student was made, and under which licence its teacher stands. things: what its run is made from."""
    return "trained with kdzoo" if run.teacher is None else distilled_words(things, run.teacher.name)
