"""Changes to the project's own files, for commands of development."""

import importlib.util
import subprocess
import sys
from pathlib import Path

from django.conf import settings
from django.core.management.base import CommandError


def require_debug() -> None:
    if not settings.DEBUG:
        raise CommandError("This command changes the project's files, so it requires DEBUG.")


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
    if importlib.util.find_spec("ruff") is None:
        return
    ruff = [sys.executable, "-m", "ruff"]
    for arguments in (["check", "--fix", "--select=I"], ["format"]):
        subprocess.run([*ruff, *arguments, "--quiet", *paths], cwd=root, check=True)  # noqa: S603 - fixed
