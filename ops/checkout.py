"""Changes to the project's own files, for commands of development."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core.management.base import CommandError

# Hidden directories of the project, and directories of generated or secret files.
HIDDEN = {".ci", ".github"}
GENERATED = {"__pycache__", "node_modules", "secrets", "staticfiles", "tls"}


def require_debug() -> None:
    if not settings.DEBUG:
        raise CommandError("This command changes the project's files, so it requires DEBUG.")


def text_files(root: Path) -> Iterator[Path]:
    """Yield the project's own text files, without what git ignores."""
    for parent, directories, names in os.walk(root):
        place = Path(parent)
        directories[:] = [name for name in directories if is_own(place / name)]
        yield from (place / name for name in names if is_text(place / name))


def is_own(directory: Path) -> bool:
    """Return whether a directory has files of the project, and no environment or copy."""
    name = directory.name
    is_hidden = name.startswith(".") and name not in HIDDEN
    return not (is_hidden or name in GENERATED or (directory / "pyvenv.cfg").exists())


def is_text(path: Path) -> bool:
    if path.name in {".env", ".git"} or not path.is_file():
        return False
    with path.open("rb") as file:
        return b"\0" not in file.read(8192)


def module_with(line: str) -> Path:
    """Return the module of config/ with a line."""
    for path in sorted(Path(settings.BASE_DIR, "config").glob("*.py")):
        if line in path.read_text():
            return path
    raise CommandError(f"No module of config/ has the line: {line.strip()}")


def insert_line(path: Path, line: str, *, before: str) -> None:
    path.write_text(path.read_text().replace(before, line + before, 1))


def tidy(root: Path, *paths: str) -> None:
    """Format files and sort their imports, if the tools of development are installed."""
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        return
    for arguments in (["check", "--fix", "--select=I"], ["format"]):
        subprocess.run([ruff, *arguments, "--quiet", *paths], cwd=root, check=True)  # noqa: S603 - fixed


def write_client_types(root: Path) -> None:
    """Write the TypeScript types again, in a new process, which has the changed apps."""
    types = root / "docs/clients/schema.d.ts"
    if not types.exists():
        return
    command = [sys.executable, "manage.py", "clienttypes"]
    output = subprocess.check_output(command, cwd=root, text=True)  # noqa: S603 - fixed
    types.write_text(output)
