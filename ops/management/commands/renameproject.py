"""Give the project a name of its own, in every file that has the template's name."""

import keyword
import re
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from ops.checkout import require_debug, text_files, tidy

# The template's own name. Merged commits of the template contain it again.
TITLE, NAME = "Latchkey", "latchkey"
# The licence notice stays, and this module has to know the name.
KEPT = {"LICENSE", "renameproject.py"}
# Code before and after the name of a class.
BEFORE_CLASS = re.compile(r"(?:\w|\.|\{ ?|\b(?:class|extends|import|new|typeof) )$")
AFTER_CLASS = re.compile(r"[\w(\[]| ?[{}]")
# Names of Kubernetes, images and hosts have no underscore.
BEFORE_HYPHENATED = re.compile(
    r"(?:(?<!:)-|namespace: |registry\.example\.com/|kubectl -n |deploy(?:ment)?/|secret generic )$"
)
IN_URL = re.compile(r"postgres://\S*$")


@dataclass(frozen=True)
class Names:
    """The forms of a project's name: Acme Shop, acme_shop, acme-shop, AcmeShop, ACME_SHOP."""

    title: str
    name: str

    def title_or_class(self, before: str, after: str) -> str:
        is_class = BEFORE_CLASS.search(before) or AFTER_CLASS.match(after)
        return self.title.replace(" ", "") if is_class else self.title

    def name_or_hyphenated(self, before: str, after: str, *, is_manifest: bool) -> str:
        if after[:1].isalpha():  # the anchor of a heading
            return self.title.replace(" ", "").lower()
        is_hyphenated = is_manifest or BEFORE_HYPHENATED.search(before)
        if after.startswith("-") or (is_hyphenated and not IN_URL.search(before)):
            return self.name.replace("_", "-")
        return self.name

    def in_place_of(self, match: re.Match[str], *, is_manifest: bool) -> str:
        """Return the form for one occurrence of the template's name."""
        before = match.string[: match.start()].rpartition("\n")[2]
        after = match.string[match.end() : match.end() + 2]
        if match.group() == TITLE:
            return self.title_or_class(before, after)
        if match.group() == NAME:
            return self.name_or_hyphenated(before, after, is_manifest=is_manifest)
        return self.name.upper()


class Command(BaseCommand):
    help = (
        "Replace the template's name in all files: titles, metrics, variables, database, image, "
        "Kubernetes and clients. Run it again after a merge of the template."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("title", help='for people, such as "Acme Shop"')
        parser.add_argument("name", help="for programs, such as acme_shop")

    def handle(self, title: str, name: str, **options: Any) -> None:
        require_debug()
        reject_invalid(title, name)
        if settings.SERVICE_NAME not in {NAME, name}:
            raise CommandError(
                f"The project has the name {settings.SERVICE_NAME}. docs/upgrading.md describes "
                "how to change it."
            )
        root = Path(settings.BASE_DIR)
        changed = list(rename(root, Names(title, name)))
        if changed:
            tidy(root, ".")
        self.stdout.write(f"Changed {len(changed)} files.")


def reject_invalid(title: str, name: str) -> None:
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*(?: [A-Za-z0-9]+)*", title) or len(title) > 30:
        raise CommandError("The title has up to 30 letters, digits and single spaces.")
    if not re.fullmatch(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*", name) or len(name) > 30:
        raise CommandError("The name has up to 30 lower-case letters, digits and underscores.")
    if keyword.iskeyword(name) or find_spec(name) or name == "postgres":
        raise CommandError(f"{name} is the name of a module or a keyword.")


def rename(root: Path, names: Names) -> Iterator[Path]:
    """Replace the template's name in contents and names of files; yield each changed file."""
    for path in list(text_files(root)):
        if path.name not in KEPT and replace_name(path, root, names):
            yield path
    dotenv = root / ".env"
    if dotenv.exists():
        # Its variables are renamed. Its values name a database that exists.
        text = dotenv.read_text()
        dotenv.write_text(text.replace(f"{NAME.upper()}_", f"{names.name.upper()}_"))


def replace_name(path: Path, root: Path, names: Names) -> bool:
    """Replace the name in one file and return whether the file has changed."""
    is_manifest = path.is_relative_to(root / "deploy/kubernetes")
    text = path.read_text()
    form = partial(names.in_place_of, is_manifest=is_manifest)
    renamed = re.sub(rf"{NAME}|{TITLE}|{NAME.upper()}", form, text)
    target = path.with_name(path.name.replace(NAME, names.name))
    if (renamed, target) == (text, path):
        return False
    path.write_text(renamed)
    path.rename(target)
    return True
