"""A new app of the shape of the example, from the templates in `ops/management/resource`."""

import keyword
import re
from argparse import ArgumentParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import CommandError
from django.core.management.templates import TemplateCommand
from django.db.models import Index

from ops.checkout import insert_line, module_with, require_debug, tidy, write_client_types

TEMPLATE = Path(__file__).resolve().parents[1] / "resource"
# The lines of config/ that name an app.
LINES = ('    "{}",\n', '    path("", include("{}.urls")),\n')
LONGEST_NAME = 30
LONGEST_SUFFIX = len("_owner_amount")
ENDINGS = (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("shes", "sh"), ("s", ""))


class Command(TemplateCommand):
    help = (
        "Create an app with a model, migrations, serializer, viewset, permission, console page, "
        "group and tests, and add it to the settings and URLs. With --owner, users own the rows; "
        "without, staff with the permission manages them."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="plural name, in lower case, such as order_lines")
        parser.add_argument("--owner", action="store_true", help="the rows belong to users")
        parser.add_argument("--model", help="name of the model (default: the singular, OrderLine)")

    def handle(self, name: str, owner: bool, model: str | None, **options: Any) -> None:  # type: ignore[override]  # the arguments above
        require_debug()
        reject_taken_name(name)
        model = model or "".join(word.title() for word in singular(name).split("_"))
        if not re.fullmatch(r"[A-Z][A-Za-z0-9]{0,30}", model):
            raise CommandError("--model must be the name of a class, such as OrderLine.")
        root = Path(settings.BASE_DIR)
        modules = {template: module_with(template.format("accounts")) for template in LINES}
        self.render(root / name, names_of(name, model), owner=owner)
        for template, path in modules.items():
            insert_line(path, template.format(name), before=template.format("accounts"))
        tidy(root, name)
        write_client_types(root)
        self.stdout.write(
            f"Created {name} with the model {model} and added it to the settings and URLs.\n"
            f"Edit {name}/models.py, then: manage.py makemigrations {name} && manage.py migrate"
        )

    def render(self, directory: Path, names: dict[str, str], *, owner: bool) -> None:
        """Write the files of an app into a new directory."""
        directory.mkdir()
        options = {"extensions": ["py"], "files": [], "verbosity": 0, "owner": owner}
        super().handle(
            "app", directory.name, str(directory), template=str(TEMPLATE), **options, **names
        )

    def validate_name(self, name: str, name_or_dir: str = "name") -> None:
        """Accept the name, which `reject_taken_name` has checked: its directory exists now."""


def reject_taken_name(name: str) -> None:
    """Raise CommandError unless the name is free as module, app, route and field of the user."""
    if not re.fullmatch(rf"[a-z][a-z0-9_]{{1,{LONGEST_NAME - 1}}}", name):
        raise CommandError(
            f"The name must have 2 to {LONGEST_NAME} lower-case letters, digits and underscores."
        )
    fields = {field.name for field in get_user_model()._meta.get_fields()}
    if keyword.iskeyword(name) or find_spec(name) or name in {*apps.app_configs, *fields}:
        raise CommandError(f"{name} is the name of a module, an app or a field of users.")


def singular(name: str) -> str:
    for plural, one in ENDINGS:
        if name.endswith(plural):
            return name.removesuffix(plural) + one
    return name


def names_of(package: str, model: str) -> dict[str, str]:
    """Return the names in the templates for an app and its model."""
    app = package.rpartition(".")[2]
    one, many = re.sub(r"(?<!^)(?=[A-Z])", " ", model).lower(), app.replace("_", " ")
    prefix = f"{app}_{model.lower()}"
    if len(prefix) > Index.max_name_length - LONGEST_SUFFIX:
        prefix = app[: Index.max_name_length - LONGEST_SUFFIX]
    return {
        "package": package,
        "model": model,
        "model_name": model.lower(),
        "one": one,
        "many": many,
        "plural": "" if many == f"{one}s" else many,
        "a": "an" if one[0] in "aeiou" else "a",
        "related_name": app,
        "route": app.replace("_", "-"),
        "group": many.capitalize(),
        "prefix": prefix,
    }
