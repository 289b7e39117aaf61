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
from kdzoo.store import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

DIGEST, OWNER = "digest", "owner"
"""the keys of a seal, in the first line of a sealed file and in the metadata of tensors"""

LONGEST_SEAL = 1 << 16
"""bytes of a first line; a longer one is no seal"""


class Damaged(KdzooError):
    """A file is not what was written, or belongs to something else. The message names the file and the reason."""


def write_sealed(path: Path, content: bytes, owner: str) -> None:
    """Write content that belongs to `owner`, whole or not at all; raises StoreError where it cannot be written."""
    seal = json.dumps({OWNER: owner, DIGEST: hashlib.sha256(content).hexdigest()})
    write_bytes(path, seal.encode() + b"\n" + content)


def read_sealed(path: Path, owner: str) -> bytes:
    """The content of a sealed file.

    Raises Damaged where the file cannot be read, belongs to another owner or differs from what was written, and
    FileNotFoundError where there is none.
    """
    try:
        with path.open("rb") as file:
            seal, content = file.readline(LONGEST_SEAL), file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Damaged(f"{path}: cannot be read ({error.strerror})") from error
    try:
        found = json.loads(seal)
        theirs, digest = str(found[OWNER]), found[DIGEST]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"{path}: its first line is not a seal") from error
    if theirs != owner:
        raise Damaged(f"{path}: belongs to {theirs!r}, not to {owner!r}")
    if digest != hashlib.sha256(content).hexdigest():
        raise Damaged(f"{path}: its content is not what was written (the digest differs)")
    return content


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors with their digest in the metadata, whole or not at all.

    Give the owner as `metadata["owner"]` where the reader is to ask for it.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_bytes(path, save(plain, metadata={**metadata, DIGEST: tensors_digest(plain)}))


def read_tensors(path: Path, owner: str | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and its metadata.

    A file without a digest, which another program wrote, is taken as it is unless an owner is asked for. Raises Damaged
    where the file cannot be read, its tensors are not those that were written, or it belongs to another owner, and
    FileNotFoundError where there is none.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  a safetensors file is no mapping
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise Damaged(f"{path}: not a whole safetensors file ({error})") from error
    if owner is not None and metadata.get(OWNER) != owner:
        raise Damaged(f"{path}: belongs to {metadata.get(OWNER, 'nobody')!r}, not to {owner!r}")
    if (DIGEST in metadata or owner is not None) and metadata.get(DIGEST) != tensors_digest(tensors):
        raise Damaged(f"{path}: its tensors are not those that were written (the digest differs)")
    return tensors, metadata


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """A digest of names, dtypes, shapes and bytes, whatever their order."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder to NAME.damaged (NAME.damaged-2, ... where that is taken); its new path."""
    number = 1
    while (aside := path.with_name(path.name + (".damaged" if number == 1 else f".damaged-{number}"))).exists() or aside.is_symlink():
        number += 1
    path.rename(aside)
    return aside
