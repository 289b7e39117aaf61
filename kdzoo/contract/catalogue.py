"""What kdzoo's own methods declare, written down beside the code, so that it is read without loading torch.

`python docs/build_pages.py` writes the file from the methods themselves; a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from functools import cache
from typing import Any, Literal, cast, get_args

from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from kdzoo.contract.card import Card, Coefficients, PretrainStage, Setting, Source, StagesRead
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Needs, NetworkNeeds
from kdzoo.contract.registry import Definition, Entry
from kdzoo.files import CONFIGS

FILE = CONFIGS / "methods.json"

_TYPES: Mapping[str, Any] = {"float": float, "int": int, "bool": bool, "str": str, "int | None": int | None, "float | None": float | None}
_BOUNDS = ("gt", "ge", "lt", "le")
_CODE = ("origin", "definition", "outside", "plugin")
"""what of a card says where its code is, and is not written down"""


@cache
def own_methods() -> Mapping[str, Entry[type[Method]]]:
    """kdzoo's own methods by name, as declared: their cards and hyper-parameters, but no loss."""
    methods = {name: _method(name, entry) for name, entry in json.loads(FILE.read_text()).items()}
    return {name: Entry(method, Definition(*method.card.definition, method.card.origin), None) for name, method in methods.items()}


def entry_of(cls: type[Method]) -> dict[str, Any]:
    """A method's declaration as JSON; raises ValueError for a hyper-parameter that cannot be written down."""
    card = cls.card
    values = {field.name: getattr(card, field.name) for field in fields(Card) if field.name not in (*_CODE, "name", "needs", "stages")}
    return {
        **{name: _plain(value) for name, value in values.items()},
        "needs": _needs(card.needs),
        "stages": card.stages if isinstance(card.stages, str) else _stages_by_field(cls),
        "fields": {name: _field(cls, name, info) for name, info in cls.model_fields.items()},
    }


def _needs(needs: Needs) -> dict[str, Any]:
    return {"student": needs.student.words, "teacher": needs.teacher.words, "preact_if_given": needs.preact_if_given}


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return asdict(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _stages_by_field(cls: type[Method]) -> dict[str, str]:
    """Which maps a method is handed where that hangs on its `stage`: without one, and with one."""
    stages_read = cast(Callable[[Any], StagesRead], cls.card.stages)
    return {"without": stages_read(cls()), "with": stages_read(cls.model_validate({"stage": 0}))}


def _field(cls: type[Method], name: str, info: FieldInfo) -> dict[str, Any]:
    bounds = {bound: getattr(one, bound) for one in info.metadata for bound in _BOUNDS if hasattr(one, bound)}
    kind = next((text for text, kind in _TYPES.items() if kind == info.annotation), None)
    choices = None if kind else list(get_args(info.annotation))
    if len(bounds) != len(info.metadata) or info.is_required() or (kind is None and not all(isinstance(c, str) for c in choices or [0])):
        raise ValueError(f"{cls.card.name}.{name}: the catalogue knows no way to write {info!r} down")
    return {"type": kind, "choices": choices, "default": info.default, "description": info.description, "bounds": bounds}


def _method(name: str, entry: Mapping[str, Any]) -> type[Method]:
    definitions: dict[str, Any] = {
        key: (_TYPES[field["type"]] if field["type"] else Literal[tuple(field["choices"])], _field_info(field))
        for key, field in entry["fields"].items()
    }
    cls = create_model(name, __base__=Method, **definitions)
    cls.card = _card(name, entry)
    return cls


def _field_info(field: Mapping[str, Any]) -> Any:
    return Field(field["default"], description=field["description"], **field["bounds"])


def _card(name: str, entry: Mapping[str, Any]) -> Card:
    """A card from its entry; as for its code, that of a method of kdzoo's."""
    from_words = NetworkNeeds.from_words
    readers: dict[str, Callable[[Any], Any]] = {
        "needs": lambda value: Needs(from_words(value["student"]), from_words(value["teacher"]), value["preact_if_given"]),
        "published": lambda value: Coefficients(**value),
        "source": lambda value: value and Source(**value),
        "search": lambda value: tuple(Setting(**setting) for setting in value),
        "disagreements": tuple,
        "pretrain": lambda value: value and _pretrain_stage(value),
        "stages": lambda value: value if isinstance(value, str) else _stages_of(value),
    }
    values = {key: readers.get(key, lambda same: same)(value) for key, value in entry.items() if key != "fields"}
    return Card(name=name, origin=f"kdzoo.methods.{name}", definition=("", name), outside=False, plugin="", **values)


def _pretrain_stage(value: Mapping[str, Any]) -> PretrainStage:
    followed_by = value["followed_by"]  # an empty list says something else than None
    return PretrainStage(**{**value, "followed_by": None if followed_by is None else tuple(followed_by)})


def _stages_of(value: Mapping[str, StagesRead]) -> Callable[[Any], StagesRead]:
    return lambda method: value["without" if method.stage is None else "with"]
