"""JSON objects whose last member is the digest of what stands before it: no changed file is read as what was written. Free of torch.

Any reader of JSON reads them as they are. Files of earlier versions have no digest, and are read without.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdzoo.errors import InputError
from kdzoo.runs.atomic import json_object, json_text, read_record_file, write_bytes

DIGEST = "digest"
"""the name of the last member"""
CLOSING = b"\n}\n"
"""what an object ends with, as `json_text` lays it out"""


def _ending(before: bytes) -> bytes:
    return b',\n "digest": "' + hashlib.sha256(before).hexdigest().encode() + b'"' + CLOSING


ENDING = len(_ending(b""))
"""bytes from the end of the member before the digest on"""
LIKE_AN_ENDING = re.compile(rb',\n "(?:digest": ".{64}|[^"]{6}": "[0-9a-f]{64})"\n}\n', re.DOTALL)
"""an ending of which the digest, or its name, may have changed"""


def with_digest(text: bytes) -> bytes:
    """An object that is not empty, as `json_text` lays it out, with the digest of what stands before it as its last member."""
    before = text[: -len(CLOSING)]
    return before + _ending(before)


def without_digest(text: bytes, where: str) -> bytes:
    """The same object without its digest; a text that does not end with one as it is. Raises InputError where the digest differs."""
    before, ending = text[:-ENDING], text[-ENDING:]
    if ending == _ending(before):
        return before + CLOSING
    if b"\r\n" in text:  # as git writes lines on Windows, which is no change: no line break stands within a JSON string
        lines = text.replace(b"\r\n", b"\n")
        body = without_digest(lines, where)
        return text if body is lines else body
    if LIKE_AN_ENDING.fullmatch(ending):
        raise changed(where)
    return text


def changed(where: str) -> InputError:
    """The error for a file that has another digest than its content, or has lost the one that it was written with."""
    return InputError(f"{where}: damaged (its content has changed since it was written: its digest differs)")


def parse_sealed(text: bytes, where: str) -> dict[str, Any]:
    """The object that a text is, without its digest; raises InputError where it is none, or not the one that was written."""
    content = json_object(without_digest(text, where), where)
    if DIGEST in content:  # its layout is another now
        raise changed(where)
    return content


def read_sealed_json(path: Path | str) -> dict[str, Any]:
    """The object in a file, without its digest; raises InputError where the file is missing, damaged or changed."""
    return parse_sealed(read_record_file(path), str(path))


def write_sealed_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file whole, as `write_json` does, with a digest."""
    write_bytes(path, with_digest(json_text(value)))


LINE = re.compile(rb'(.*),"(.{6})":"([0-9a-f]{16})"\}', re.DOTALL)
"""a line that ends with an object whose last member is a digest: what stands before that, and its name, which may have changed too"""


def line_with_digest(line: bytes) -> bytes:
    """A line that ends with an object, which has the first 16 digits of the digest of what stands before it as its last member then."""
    before = line.removesuffix(b"}")
    return before + b',"digest":"' + _digest_of_line(before) + b'"}'


def line_without_digest(line: bytes) -> tuple[bytes, bool]:
    """The same line without its digest, and whether it had one; raises ValueError where that differs."""
    found = LINE.fullmatch(line.strip())
    if found is None:
        return line, False
    if (found[2], found[3]) != (DIGEST.encode(), _digest_of_line(found[1])):
        raise ValueError("its digest differs")
    return found[1] + b"}", True


def parse_line(line: bytes, *, needs_digest: bool) -> tuple[Any, bool]:
    """The JSON value of a line without its digest, and whether it had one; raises ValueError where that differs or is missing."""
    body, has_digest = line_without_digest(line)
    content = json.loads(body)
    if not has_digest and (needs_digest or (isinstance(content, dict) and DIGEST in content)):
        raise ValueError("it has lost its digest")
    return content, has_digest


def _digest_of_line(before: bytes) -> bytes:
    return hashlib.sha256(before).hexdigest()[:16].encode()
