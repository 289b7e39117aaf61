"""Whatever somebody's file holds, its reader gives what was written or raises the one error that tells of it: never another."""

import csv
import io
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_predictions import RUN, drawn

from kdzoo.data.texts import read_texts
from kdzoo.errors import InputError
from kdzoo.runs.costs import read_costs
from kdzoo.runs.metrics_file import read_lines
from kdzoo.runs.predictions import read_predictions, write_predictions
from kdzoo.runs.result_file import NewerSchema
from kdzoo.runs.seals import DamagedFile, read_sealed, read_tensors, write_sealed, write_tensors
from kdzoo.runs.store import RunFolder
from kdzoo.suite.plan.doses import read_doses
from kdzoo.suite.plan.starts import read_starts
from kdzoo.suite.report.records import read_record
from kdzoo.suite.report.verified_file import read_verifications
from kdzoo.teachers.file_io import read_saved, write_saved

COMMITTED = Path(__file__).resolve().parent.parent / "results/digits"
A_RUN = sorted(path for path in (COMMITTED / "runs").iterdir() if (path / "result.json").exists())[0]
READERS: dict[str, tuple[Path, Callable[[Path], object]]] = {
    "run.json": (A_RUN, lambda folder: read_record(RunFolder(folder))),
    "result.json": (A_RUN, lambda folder: RunFolder(folder).result()),
    "metrics.jsonl": (A_RUN, lambda folder: read_lines(folder / "metrics.jsonl", A_RUN.name)),
    "bench.json": (COMMITTED, read_starts),
    "doses.json": (COMMITTED, read_doses),
}
"""records of a bench as earlier versions wrote them, without a digest: where a whole one is, and what reads its folder"""

PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=5
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    if isinstance(value, dict):
        return [at, *(place for key, item in value.items() for place in places(item, (*at, key)))]
    if isinstance(value, list):
        return [at, *(place for key, item in enumerate(value[:3]) for place in places(item, (*at, key)))]
    return [at]


def put(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """A JSON value with something else at a place."""
    if not at:
        return new
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[at[0]] = put(value[at[0]], at[1:], new)
    return changed


def folder_with(tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes) -> Path:
    """A folder of a run's or a bench's name with one file changed."""
    whole, _ = READERS[name]
    folder = tmp_path_factory.mktemp("changed") / whole.name
    folder.mkdir()
    for beside in ("run.json", "result.json"):
        if (whole / beside).exists():
            (folder / beside).write_bytes((whole / beside).read_bytes())
    (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=60)
@given(data=st.data())
def test_a_record_with_another_value_at_any_place_is_read_or_told(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    whole, read = READERS[name]
    text = (whole / name).read_text()
    lines = [json.loads(line) for line in text.splitlines()] if name.endswith("l") else [json.loads(text)]
    number = data.draw(st.integers(0, len(lines) - 1), "line")
    lines[number] = put(lines[number], data.draw(st.sampled_from(places(lines[number])), "place"), data.draw(JSON, "value"))
    try:
        found = read(folder_with(tmp_path_factory, name, "\n".join(map(json.dumps, lines)).encode()))
    except (InputError, NewerSchema):
        return
    assert found is not None


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=40)
@given(data=st.data())
def test_a_record_of_any_bytes_is_read_or_told(tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject) -> None:
    whole, read = READERS[name]
    with suppress(InputError, NewerSchema):
        read(folder_with(tmp_path_factory, name, changed((whole / name).read_bytes(), data)))


def changed(content: bytes, data: st.DataObject) -> bytes:
    """Content that was cut, zeroed, flipped at a bit, or that has other bytes in it."""
    at = data.draw(st.integers(0, max(len(content) - 1, 0)), "where")
    match data.draw(st.sampled_from(["cut", "zeroed", "flipped", "other", "more"]), "how"):
        case "cut":
            return content[:at]
        case "zeroed":
            return content[:at] + bytes(len(content) - at)
        case "flipped":
            return content[:at] + bytes([content[at] ^ 1 << data.draw(st.integers(0, 7), "bit")]) + content[at + 1 :]
        case "other":
            return data.draw(st.binary(max_size=200), "content")
        case _:
            return content[:at] + data.draw(st.binary(min_size=1, max_size=20), "more") + content[at:]


TENSORS = {"weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(3)}


def sealed(path: Path) -> None:
    write_sealed(path, b"a state" * 9, RUN)


def tensors(path: Path) -> None:
    write_tensors(path, TENSORS, {"owner": RUN})


PARTS = {"test": drawn(4)}


def predictions(path: Path) -> None:
    write_predictions(path, PARTS, RUN)


def content_of_tensors(path: Path) -> bytes:
    found, _ = read_tensors(path, RUN)
    return b"".join(name.encode() + found[name].numpy().tobytes() for name in sorted(found))


def content_of_predictions(path: Path) -> bytes:
    found = read_predictions(path, RUN, part="test", classes=3)
    return b"".join(array.tobytes() for array in (found.log_probs, found.targets, found.keys))


SEALED: dict[str, tuple[Callable[[Path], None], Callable[[Path], bytes]]] = {
    "checkpoint": (sealed, lambda path: read_sealed(path, RUN)),
    "a.safetensors": (tensors, content_of_tensors),
    "predictions.npz": (predictions, content_of_predictions),
}


@pytest.mark.parametrize("kind", SEALED)
@settings(max_examples=150)
@given(data=st.data())
def test_a_file_with_a_digest_is_what_was_written_or_told(tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject) -> None:
    write, read = SEALED[kind]
    path = tmp_path_factory.mktemp("sealed") / kind
    write(path)
    sound = read(path)
    path.write_bytes(changed(path.read_bytes(), data))
    with suppress(DamagedFile):
        assert read(path) == sound


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@settings(max_examples=100)
@given(data=st.data())
def test_the_file_of_a_saved_teacher_is_read_or_told(tmp_path_factory: pytest.TempPathFactory, ending: str, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("saved") / f"teacher.{ending}"
    keys = torch.arange(48, dtype=torch.uint8).view(3, 16)
    write_saved(path, {"keys": keys, "logits": torch.eye(3), "views": torch.zeros(3, dtype=torch.int64)}, {"name": "t", "classes": "3"})
    path.write_bytes(changed(path.read_bytes(), data))
    with suppress(InputError):
        read_saved(path)


@settings(max_examples=150)
@given(
    content=st.binary(max_size=300)
    | st.lists(st.lists(st.text(max_size=8), min_size=1, max_size=4), max_size=6).map(lambda rows: as_csv(rows))
)
def test_a_table_of_texts_is_read_or_told(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("texts") / "texts.csv"
    for head in (b"", b"text,label\n"):
        file.write_bytes(head + content)
        try:
            raw = read_texts(file)
        except InputError:
            continue
        assert len(raw.train[0]) == len(raw.train[1]) > 0


def as_csv(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode(errors="surrogatepass")


@settings(max_examples=60)
@given(value=JSON | st.dictionaries(st.just("costs"), JSON))
def test_costs_and_verifications_are_read_or_told(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    folder = tmp_path_factory.mktemp("records")
    for name in ("costs.json", "verified.json"):
        (folder / name).write_text(json.dumps(value))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDZOO_CACHE", str(folder))
        assert isinstance(read_costs(), dict)
    with suppress(InputError):
        read_verifications(folder)
