"""Reading a weights file: what it is, its digest, its tensors; nothing in it is ever executed."""

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import WeightsError

CONVERSION_PAGE = 'docs/official-models.md, section "NVIDIA .pkl files"'

HEAD_BYTES = 4096
SAFETENSORS_PREFIX = 8  # little-endian length of the JSON header
MAX_SAFETENSORS_HEADER = 100_000_000
PICKLE_PROTOCOL_MARK = b"\x80"
# torch.save without zip begins with this number, pickled.
TORCH_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
NVIDIA_MARKS = (b"dnnlib", b"torch_utils.persistence", b"torch_utils\npersistence")


@dataclass(frozen=True, slots=True)
class FileInfo:
    """Where weights came from."""

    path: Path
    """The file."""
    sha256: str
    """Digest of its bytes."""
    metadata: dict[str, str]
    """The metadata of a safetensors file; empty for others."""


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """Content of a weights file."""

    state: dict[str, Any]
    """What the file holds; every tensor of reduced or double precision as float32."""
    sha256: str
    """Digest of the file's bytes."""
    path: Path
    """Where it was read."""
    metadata: dict[str, str]
    """The metadata of a safetensors file; empty for others."""

    @property
    def info(self) -> FileInfo:
        """The file without its tensors."""
        return FileInfo(self.path, self.sha256, self.metadata)


def read_weights(path: Path, *, sha256: str | None = None) -> WeightsFile:
    """Read a ``.safetensors`` or PyTorch file; its kind is told by its content, not its name.

    Args:
        path: the file.
        sha256: digest that the file must have; None accepts any.

    Raises:
        WeightsError: no such file, another digest, a truncated file, a file of another kind, or a
            pickle that needs code to be run.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; see docs/official-models.md for the sources")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        head = file.read(HEAD_BYTES)
    if sha256 is not None and digest != sha256.lower():
        raise WeightsError(
            f"{path}: SHA-256 is {digest}, expected {sha256}; download the file again"
        )
    if _is_safetensors(head):  # first: the length it begins with may look like a pickle's mark
        state, metadata = _read_safetensors(path)
    else:
        _refuse_other_kinds(path, head)
        state, metadata = _read_torch(path), {}
    return WeightsFile(_as_float32(state), digest, path, metadata)


def _is_safetensors(head: bytes) -> bool:
    length = int.from_bytes(head[:SAFETENSORS_PREFIX], "little")
    return head[SAFETENSORS_PREFIX : SAFETENSORS_PREFIX + 1] == b"{" and (
        length < MAX_SAFETENSORS_HEADER
    )


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    """What users have under a weights file's name although it is something else."""
    start = head.lstrip()[:64].lower()
    if not head:
        raise WeightsError(f"{path}: the file is empty; download it again")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightsError(
            f"{path}: this is a web page, not weights; the download asked for a confirmation"
        )
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path}: this is a Git LFS pointer; fetch the file with `git lfs pull`")
    bare_pickle = head.startswith(PICKLE_PROTOCOL_MARK) and TORCH_LEGACY_MAGIC not in head[:32]
    if bare_pickle or any(mark in head for mark in NVIDIA_MARKS):
        kind = "an NVIDIA .pkl" if any(mark in head for mark in NVIDIA_MARKS) else "a Python pickle"
        raise WeightsError(
            f"{path}: this is {kind}, which can only be read by running the code in it, and that "
            "is never done here; expected .safetensors or a PyTorch state dict. "
            f"To convert an NVIDIA file: {CONVERSION_PAGE}"
        )


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        state = load_file(path)
        with path.open("rb") as file:
            length = int.from_bytes(file.read(SAFETENSORS_PREFIX), "little")
            metadata = json.loads(file.read(length)).get("__metadata__", {})
    except (SafetensorError, ValueError) as error:
        raise WeightsError(
            f"{path}: a damaged or truncated safetensors file ({error}); download it again"
        ) from error
    return state, metadata


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, the container of OpenAI's CLIP releases."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(member.endswith("/constants.pkl") for member in archive.namelist())


def _read_torch(path: Path) -> dict[str, Any]:
    if is_torchscript(path):
        raise WeightsError(
            f"{path}: a TorchScript archive, expected a state dict; only CLIP's own files are read "
            "in this form"
        )
    # Mapped, a checkpoint costs the memory of those entries alone that are used.
    mapped = zipfile.is_zipfile(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except UnpicklingError as error:
        blocked = re.search(r"GLOBAL (\S+)", str(error))
        if blocked is None:
            raise _damaged(path, error) from error
        raise WeightsError(
            f"{path}: holds Python objects ({blocked[1]}), not only tensors and numbers; they are "
            "never unpickled, because that runs code. Expected a state dict; if you trust the "
            "file, save its state dict alone in an environment of your own"
        ) from error
    except (
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        OSError,
    ) as error:
        raise _damaged(path, error) from error
    if not isinstance(state, Mapping):
        raise WeightsError(
            f"{path}: holds one {type(state).__name__}, expected a dict of tensors by name"
        )
    return dict(state)


def _damaged(path: Path, error: Exception) -> WeightsError:
    cause = next(iter(str(error).splitlines()), type(error).__name__)
    return WeightsError(
        f"{path}: damaged, truncated or not a weights file ({cause}); expected "
        ".safetensors or a PyTorch file; download it again"
    )


def _as_float32(value: Any) -> Any:
    """Tensors of other floating types to float32, at any depth."""
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: _as_float32(item) for key, item in value.items()}
    return value
