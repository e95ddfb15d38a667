"""What a fit over chunks has learned so far, in a file that is always whole: what resuming starts from."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normkit import Moments

MAGIC = b"normkit checkpoint 1\n"
DIGEST_BYTES = 32
LENGTH_BYTES = 8


@dataclass(frozen=True)
class Checkpoint:
    """A fit after its first `chunks` chunks.

    Parameters
    ----------
    chunks, rows : int
        How many have been learned.
    trail : str
        Of the chunks, to tell other data: see `follow`.
    source : str or None
        Fingerprint of the file that the chunks come from, if they come from one that has a fingerprint.
    settings : dict
        Class and parameters of the scaler that decide what is learned.
    features : list of str, or int
        Their names, or their number.
    details : dict
        What the scaler knows besides its moments.
    moments : Moments
        What it has learned.
    """

    chunks: int
    rows: int
    trail: str
    source: str | None
    settings: dict[str, Any]
    features: list[str] | int
    details: dict[str, Any]
    moments: Moments


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint; whoever reads the file at any time finds the old one or the new one, whole."""
    fields = vars(checkpoint) | {"moments": None}
    text = json.dumps(fields).encode()
    body = len(text).to_bytes(LENGTH_BYTES, "little") + text + checkpoint.moments.to_bytes()
    # In the same directory: a file can only be renamed onto another within a file system.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(MAGIC + hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest() + body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def load(path: Path) -> Checkpoint | None:
    """Read a checkpoint; None if there is none, ValueError if the file is no whole one."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if not content.startswith(MAGIC):
        raise ValueError(f"{path} is not a checkpoint of this version of normkit; remove it to start anew")
    digest, body = content[len(MAGIC) :][:DIGEST_BYTES], content[len(MAGIC) + DIGEST_BYTES :]
    if hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest() != digest:
        raise ValueError(f"the checkpoint {path} is damaged; remove it to start anew")
    end = LENGTH_BYTES + int.from_bytes(body[:LENGTH_BYTES], "little")
    fields = json.loads(body[LENGTH_BYTES:end])
    return Checkpoint(**fields | {"moments": Moments.from_bytes(body[end:])})
