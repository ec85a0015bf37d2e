"""The files and lines of the example, and what `manage.py removeexample` leaves."""

from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connection
from pytest_django import Settings

from ops.management.commands.removeexample import drop_tables, mentions, remove

PRESENT = apps.is_installed("catalog")


@pytest.fixture
def checkout(settings: Settings, tmp_path: Path) -> Path:
    """A checkout with an example."""
    settings.DEBUG = True
    settings.BASE_DIR = tmp_path
    files = {
        "catalog/models.py": "",
        "docs/scale.json": "{}",
        "config/settings.py": 'INSTALLED_APPS = [\n    "accounts",\n    "catalog",\n]\n',
        "config/urls.py": '    path("", include("catalog.urls")),\n'
        '    path("", include("a.urls")),\n',
        "pyproject.toml": 'source = ["a", "catalog", "b"]\n'
        'models = ["a.models", "catalog.models"]\n'
        'layers = ["a | catalog | b"]\n"bench/**" = ["S"]  # example\nkept = 1\n',
        "Makefile": ".PHONY: run bench scale\n\nrun:\n\tx\n\n"
        "bench: a\n\tx\n\nscale:\n\tx\n\nend:\n",
        "README.md": "One\n\n<!-- example -->\nTwo\n\nThree\n<!-- /example -->\n\n| a |\n"
        "| b <!-- example --> |\ncatalog/  x\nmake bench  # x\nFour\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_files_blocks_and_lines_of_the_example_are_removed(checkout: Path) -> None:
    for _ in range(2):
        remove(checkout)

        given = {
            str(path.relative_to(checkout)): path.read_text()
            for path in checkout.rglob("*")
            if path.is_file()
        }
        assert given == {
            "config/settings.py": 'INSTALLED_APPS = [\n    "accounts",\n]\n',
            "config/urls.py": '    path("", include("a.urls")),\n',
            "pyproject.toml": 'source = ["a", "b"]\nmodels = ["a.models"]\n'
            'layers = ["a | b"]\nkept = 1\n',
            "Makefile": ".PHONY: run\n\nrun:\n\tx\n\nend:\n",
            "README.md": "One\n\n| a |\nFour\n",
        }
    assert mentions(checkout) == []


@pytest.mark.django_db(transaction=True)
def test_the_tables_of_an_app_are_dropped_and_those_of_others_kept() -> None:
    before = set(connection.introspection.table_names())
    try:
        for app in ("articles", "nothing"):
            drop_tables(app)
        after = set(connection.introspection.table_names())
    finally:
        call_command("migrate", verbosity=0)

    assert before - after == {"articles_article"}


@pytest.mark.django_db(transaction=True)
def test_the_command_removes_the_tables_and_names_what_is_left(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "own.md").write_text("See catalog.\n")
    try:
        call_command("removeexample")
        tables = connection.introspection.table_names()
    finally:
        call_command("migrate", verbosity=0)

    assert not [name for name in tables if name.startswith("catalog_")]
    assert "own.md still names it." in capsys.readouterr().out


def test_the_tables_can_be_kept(checkout: Path, db: None) -> None:
    tables = connection.introspection.table_names()

    call_command("removeexample", keep_tables=True)

    assert connection.introspection.table_names() == tables
    assert ("catalog_product" in tables) == PRESENT


def test_the_example_is_removed_in_development_only(checkout: Path, settings: Settings) -> None:
    settings.DEBUG = False

    with pytest.raises(CommandError, match="requires DEBUG"):
        call_command("removeexample")
