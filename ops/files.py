"""Files with secrets: bounded to read, private to write."""

import os
from pathlib import Path

MAX_BYTES = 65_536


def read_text(path: Path) -> str:
    """
    Return the text of a regular file, or raise OSError.

    Bytes that are not UTF-8 become lone surrogates, for the reader to judge where they stand.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES or b"\0" in content:
        raise OSError(f"{path} is no text of at most {MAX_BYTES} bytes")
    return content.decode("utf-8-sig", errors="surrogateescape")


def write_private(path: Path, text: str) -> None:
    """Replace a file as a whole; only its owner can read it, at no moment anyone else."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(new, "x", opener=private) as file:
        file.write(text)
    new.replace(path)


def private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)
