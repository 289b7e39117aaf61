"""The members of a JSON object as texts, cut where kdzoo's own files have line breaks: what many files share is parsed or laid out once."""

from __future__ import annotations

from collections.abc import Mapping


def members(text: bytes, depth: int) -> dict[str, bytes] | None:
    """The text of every value of an object by name; None where it is not laid out as `write_json` lays out an object `depth` levels deep.

    No line break stands within a JSON string. So whatever comes before such a comma, line break and indent, and is a JSON value, is a
    value of this object: where all texts are JSON values the text is an object with these members, and nothing else.
    """
    indent = b" " * depth
    opening, between, closing = b"{\n" + indent + b'"', b",\n" + indent + b'"', b"\n" + indent[1:] + b"}"
    if not (text.startswith(opening) and text.endswith(closing)):
        return None
    values: dict[str, bytes] = {}
    for member in text[len(opening) : -len(closing)].split(between):
        name, colon, value = member.partition(b'": ')
        key = name.decode("ascii", "replace")
        if not colon or not key.isidentifier() or key in values:
            return None
        values[key] = value
    return values


def object_of_members(values: Mapping[str, bytes], depth: int) -> bytes:
    """The object that has these members, laid out as `members` expects it; the names are identifiers, each value is laid out already."""
    indent = b" " * depth
    listed = b",\n".join(indent + b'"%b": %b' % (name.encode(), values[name]) for name in sorted(values))
    return b"{\n" + listed + b"\n" + indent[1:] + b"}"
