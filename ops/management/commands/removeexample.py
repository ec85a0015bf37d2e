"""
Remove `catalog`, the example, and everything that names it.

A line with the comment `# example` or `<!-- example -->` belongs to the example, and so does a
block of Markdown between lines `<!-- example -->` and `<!-- /example -->`.
"""

import re
import shutil
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand

from ops.checkout import require_debug, text_files, write_client_types

# The benchmarks measure the example, and the documents have their results.
REMOVED = ["catalog", "bench", "docs/performance.md", "docs/performance.json"]
REMOVED += ["docs/performance.svg", "docs/scale.json"]
REMOVED += ["tests/faults/test_probes.py", "tests/service/test_bench.py"]
MARKED = re.compile(
    r"^<!-- example -->\n.*?^<!-- /example -->\n\n?|^[^\n]*(?:# example|<!-- example -->)[ |]*\n",
    re.MULTILINE | re.DOTALL,
)
ENTRIES: dict[str, str] = {
    "config/*.py": r'^ *"catalog",\n|^ *path\("", include\("catalog\.urls"\)\),\n',
    "tests/service/test_project.py": r'"catalog", ',
    "pyproject.toml": r'"(?:catalog(?:\.\*)?|bench/)", |, "catalog(?:\.models)?"| \| catalog\b',
    "Makefile": r"^(?:bench|scale):.*\n(?:\t.*\n)+\n| bench scale",
    "README.md": r"^(?:catalog/|bench/|make bench|make scale) .*\n",
    ".dockerignore": r"^bench\n",
}
MENTION = re.compile(r"\bcatalog\b|/product\b")
# These may name the example: the history, and this command.
KEPT = {"CHANGELOG.md", "removeexample.py", "test_removeexample.py"}


class Command(BaseCommand):
    help = "Remove the example, its tables in this database, and the files and lines that name it."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--keep-tables", action="store_true", help="leave the database alone")

    def handle(self, *args: Any, keep_tables: bool, **options: Any) -> None:
        require_debug()
        if not keep_tables:
            drop_tables("catalog")
        root = Path(settings.BASE_DIR)
        remove(root)
        write_client_types(root)
        self.stdout.write("Removed the example. Other databases still have its tables.")
        for path in mentions(root):
            self.stdout.write(f"{path} still names it.")


def drop_tables(app: str) -> None:
    """Reverse the migrations of an app, if it is installed."""
    if app in apps.app_configs:
        call_command("migrate", app, "zero", verbosity=0)


def remove(root: Path) -> None:
    """Remove the example from a checkout; without the example, nothing changes."""
    for name in REMOVED:
        path = root / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
    edits = [(path, MARKED) for path in text_files(root) if path.name not in KEPT]
    for pattern, entry in ENTRIES.items():
        edits += [(path, re.compile(entry, re.MULTILINE)) for path in root.glob(pattern)]
    for path, removed in edits:
        rewrite(path, removed)


def rewrite(path: Path, removed: re.Pattern[str]) -> None:
    text = path.read_text()
    kept = removed.sub("", text)
    if kept != text:
        path.write_text(kept)


def mentions(root: Path) -> list[Path]:
    """Return the files that still name the example."""
    return [
        path.relative_to(root)
        for path in text_files(root)
        if path.name not in KEPT and MENTION.search(path.read_text())
    ]
