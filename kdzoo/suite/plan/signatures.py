"""Which methods their authors have signed as the methods that were meant (`configs/signed.yaml`). Free of torch."""

from __future__ import annotations

from functools import cache

from kdzoo.files import CONFIGS
from kdzoo.runs.fields import Spec, parse
from kdzoo.suite.plan.yaml_files import read_yaml

FILE = CONFIGS / "signed.yaml"


class Signature(Spec):
    """Who signed which version of a method, and where that stands."""

    version: str
    by: str
    link: str


@cache
def signatures() -> dict[str, Signature]:
    """The signatures, by method."""
    return {method: parse(Signature, entry, f"signed.yaml: {method}") for method, entry in read_yaml(FILE).items()}


def signature_line(method: str, version: str) -> str | None:
    """Who signed a method, in a line; None where nobody did. A signature of another version says so."""
    signature = signatures().get(method)
    if signature is None:
        return None
    if signature.version != version:
        return f"{method}: version {signature.version} was signed by {signature.by}, version {version} is not ({signature.link})"
    return f"{method}: signed as the method that was meant by {signature.by} ({signature.link})"
