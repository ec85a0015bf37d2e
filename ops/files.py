"""Read small files and write private files, for configuration with secrets."""

import os
from pathlib import Path

MAX_BYTES = 65_536


def read_text(path: Path) -> str:
    """
    Return the text of a regular file of at most `MAX_BYTES`, or raise OSError.

    Invalid UTF-8 becomes lone surrogates, so that the caller can locate it.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES or b"\0" in content:
        raise OSError(f"{path} is not a text file of at most {MAX_BYTES} bytes")
    return content.decode("utf-8-sig", errors="surrogateescape")


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically with one that only its owner can read."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(new, "x", opener=private) as file:
        file.write(text)
    new.replace(path)


def private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)
