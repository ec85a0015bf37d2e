"""A new app from the templates of `manage.py startresource`."""

from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from ops.checkout import tidy
from ops.management.commands.startresource import Command, names_of, singular
from tests.rig.machine import ROOT


@pytest.fixture
def checkout(settings: Settings, tmp_path: Path) -> Path:
    """A directory with copies of the modules that name the apps."""
    settings.DEBUG = True
    settings.BASE_DIR = tmp_path
    (tmp_path / "config").mkdir()
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for path in (ROOT / "config").glob("*.py"):
        (tmp_path / "config" / path.name).write_text(path.read_text())
    return tmp_path


def files_in(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text()
        for path in directory.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_app_of_the_tests_is_what_the_templates_give(tmp_path: Path) -> None:
    names = names_of("tests.articles", "Article")
    Command().render(tmp_path / "articles", names, owner=True)
    tidy(ROOT, str(tmp_path))

    assert files_in(tmp_path / "articles") == files_in(ROOT / "tests/articles")


@pytest.mark.parametrize("arguments", [["--owner"], []])
def test_an_app_is_created_and_added_to_the_settings_and_urls(
    checkout: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("startresource", "order_lines", *arguments)

    given = {path.name: path.read_text() for path in (checkout / "config").glob("*.py")}
    assert sum('    "order_lines",\n' in text for text in given.values()) == 1
    assert 'path("", include("order_lines.urls"))' in given["urls.py"]
    models = (checkout / "order_lines/models.py").read_text()
    assert "class OrderLine(models.Model)" in models
    assert ("owner" in models) == bool(arguments)
    assert 'register("order-lines"' in (checkout / "order_lines/urls.py").read_text()
    assert "order_lines with the model OrderLine" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name",
    ["Orders", "x", "o" * 31, "1st", "class", "json", "accounts", "sessions", "names"],
)
def test_a_name_that_is_taken_or_invalid_is_rejected(checkout: Path, name: str) -> None:
    before = files_in(checkout)

    with pytest.raises(CommandError):
        call_command("startresource", name)

    assert files_in(checkout) == before


def test_an_invalid_model_is_rejected(checkout: Path) -> None:
    with pytest.raises(CommandError, match="--model"):
        call_command("startresource", "orders", model="order line")


def test_nothing_is_created_where_the_lines_are_not_found(checkout: Path) -> None:
    (checkout / "config/urls.py").unlink()

    with pytest.raises(CommandError, match=r"No module of config/ has the line: path"):
        call_command("startresource", "orders")

    assert not (checkout / "orders").exists()


def test_the_project_is_changed_in_development_only(checkout: Path, settings: Settings) -> None:
    settings.DEBUG = False

    with pytest.raises(CommandError, match="requires DEBUG"):
        call_command("startresource", "orders")


def test_without_the_tools_of_development_nothing_is_formatted(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkout / "module.py"
    path.write_text("a   = 1\n")
    monkeypatch.setattr("sys.executable", str(checkout / "python"))

    tidy(checkout, "module.py")

    assert path.read_text() == "a   = 1\n"


@pytest.mark.parametrize(
    ("name", "one"),
    [("orders", "order"), ("categories", "category"), ("boxes", "box"), ("classes", "class"),
     ("branches", "branch"), ("dishes", "dish"), ("houses", "house"), ("sheep", "sheep")],
)  # fmt: skip
def test_the_model_has_the_singular_of_the_name(name: str, one: str) -> None:
    assert singular(name) == one


def test_names_of_indexes_have_at_most_30_characters() -> None:
    assert names_of("orders", "Order")["prefix"] == "orders_order"
    assert len(names_of("o" * 30, "Order")["prefix"] + "_owner_amount") == 30
