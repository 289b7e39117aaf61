"""Files that know what they belong to and what they must contain, so that nothing damaged is read back as if it were whole.

A sealed file is one line of JSON (its owner and the digest of what follows) and then its content. Tensors stay plain
safetensors, which any library reads; owner and digest stand in their metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kdzoo.errors import KdzooError
from kdzoo.files import kind_of
from kdzoo.runs.atomic import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

DIGEST, OWNER = "digest", "owner"
"""the keys of a seal, in the first line of a sealed file and in the metadata of tensors"""

LONGEST_SEAL = 1 << 16
"""bytes of a first line; a longer one is no seal"""


class DamagedFile(KdzooError):
    """A file is not what was written, or belongs to something else. The message names the file and the reason."""


def seal(content: bytes, owner: str) -> bytes:
    """One line of JSON that names the owner and the digest of some content."""
    return json.dumps({OWNER: owner, DIGEST: hashlib.sha256(content).hexdigest()}, separators=(",", ":")).encode()


def check_seal(path: Path, line: bytes, content: bytes, owner: str) -> None:
    """Raises DamagedFile where what was found is no seal, names another owner, or belongs to other content."""
    try:
        record = json.loads(line)
        seal_owner, digest = str(record[OWNER]), record[DIGEST]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedFile(f"{path}: has no record of its owner and digest") from error
    if seal_owner != owner:
        raise DamagedFile(f"{path}: belongs to {seal_owner!r}, not to {owner!r}")
    if digest != hashlib.sha256(content).hexdigest():
        raise DamagedFile(f"{path}: its content has changed since it was written (the digest differs)")


def write_sealed(path: Path, content: bytes, owner: str) -> None:
    """Write content that belongs to `owner`, whole or not at all; raises StoreError where it cannot be written."""
    write_bytes(path, seal(content, owner) + b"\n" + content)


def read_sealed(path: Path, owner: str) -> bytes:
    """The content of a sealed file.

    Raises DamagedFile where the file cannot be read, belongs to another owner or differs from what was written, and
    FileNotFoundError where there is none.
    """
    refuse_what_is_no_file(path)
    try:
        with path.open("rb") as file:
            line, content = file.readline(LONGEST_SEAL), file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedFile(f"{path}: cannot be read ({error.strerror})") from error
    check_seal(path, line, content, owner)
    return content


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors with a digest of them and of their metadata, whole or not at all; equal content is equal bytes.

    Give the owner as `metadata["owner"]` where the reader is to ask for it.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_bytes(path, _in_order(save(plain, metadata={**metadata, DIGEST: tensors_digest(plain, metadata)})))


def _in_order(content: bytes) -> bytes:
    """A safetensors file with its metadata in order of their keys, which the library writes in another order each time."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + content[end:]


def read_tensors(path: Path, owner: str | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and its metadata.

    A file without a digest, which another program wrote, is taken as it is unless an owner is asked for. Raises DamagedFile
    where the file cannot be read, its tensors are not those that were written, or it belongs to another owner, and
    FileNotFoundError where there is none.
    """
    from safetensors import SafetensorError, safe_open

    refuse_what_is_no_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  a safetensors file is no mapping
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise DamagedFile(f"{path}: not a whole safetensors file ({error})") from error
    if owner is not None and DIGEST not in metadata:
        raise DamagedFile(f"{path}: has no digest; another program or an older kdzoo wrote it")
    if owner is not None and metadata.get(OWNER) != owner:
        raise DamagedFile(f"{path}: belongs to {metadata.get(OWNER, 'nobody')!r}, not to {owner!r}")
    if DIGEST in metadata and metadata[DIGEST] != tensors_digest(tensors, metadata):
        raise DamagedFile(f"{path}: its tensors or metadata have changed since it was written (the digest differs)")
    return tensors, metadata


def tensors_digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """A digest of names, dtypes, shapes and bytes, and of the metadata but for its own digest, whatever their order."""
    import torch

    beside = {key: value for key, value in (metadata or {}).items() if key != DIGEST}
    digest = hashlib.sha256(json.dumps(beside, sort_keys=True).encode() if beside else b"")
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def refuse_what_is_no_file(path: Path) -> None:
    """Raises DamagedFile for a folder, a pipe or a device: reading some of them never ends."""
    if path.exists() and not path.is_file():
        raise DamagedFile(f"{path}: expected a file, found {kind_of(path.stat().st_mode)}")
