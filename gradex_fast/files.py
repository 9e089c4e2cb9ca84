"""Files that are whole or absent: written under a temporary name, flushed, renamed; and their checksums."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from gradex_fast.errors import GradexError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Replace `path` by `content`, or leave it as it was.

    Raises:
        GradexError: the disk is full or the folder cannot be written; no temporary file stays behind.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise GradexError(
            f"cannot write {path} ({len(data):,} bytes): {error.strerror}; what was written before is kept, "
            "make room and run the same command again"
        ) from error


def temporary_name(path: Path) -> Path:
    """A hidden file beside `path` which no other process on any machine writes."""
    return path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")


@contextmanager
def explained_if_full(folder: Path, size: int) -> Iterator[None]:
    """Libraries fail in many ways on a full disk: an error while fewer than `size` bytes are free is this one.

    Raises:
        GradexError: in place of an OSError, RuntimeError or SafetensorError when the disk is full.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        place = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(place).free
        if free >= size:
            raise
        raise GradexError(
            f"cannot write below {folder}: the disk is full ({free:,} bytes free, {size:,} needed); what was written "
            "before is kept, make room and run the same command again"
        ) from error


@contextmanager
def replacing(folder: Path, size: int = 0) -> Iterator[Path]:
    """A folder to write in that takes the place of `folder` at the end; if anything fails, nothing changes.

    Raises:
        GradexError: the disk is full: an error while fewer than `size` bytes are free is taken for that.
    """
    temporary = temporary_name(folder)
    try:
        with explained_if_full(folder.parent, size):
            temporary.mkdir(parents=True)
            yield temporary
            if folder.exists():
                shutil.rmtree(folder)
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """A JSON file's value, or None where there is no file or it was cut off in the middle."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def checksum(*parts: bytes | str | memoryview) -> str:
    """32 hex digits of BLAKE2b over the parts, each preceded by its length."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else memoryview(part).cast("B")
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def file_checksum(path: Path) -> str:
    """32 hex digits of BLAKE2b over a file's content, read in pieces."""
    state = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            state.update(piece)
    return state.hexdigest()
