"""The template's name in the forms of another one, with `manage.py renameproject`."""

from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from ops.management.commands.renameproject import NAME, TITLE, Names, rename

ACME = Names("Acme Shop", "acme_shop")
CAPITALS = NAME.upper()


@pytest.fixture
def checkout(settings: Settings, tmp_path: Path) -> Path:
    settings.DEBUG = True
    settings.BASE_DIR = tmp_path
    settings.SERVICE_NAME = NAME
    (tmp_path / "deploy/kubernetes").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (f"# {TITLE}: users, {TITLE}'s sessions", "# Acme Shop: users, Acme Shop's sessions"),
        (f"<title>{TITLE}</title>", "<title>Acme Shop</title>"),
        (f"class {TITLE}:", "class AcmeShop:"),
        (f"import {{ ApiError, {TITLE} }} from", "import { ApiError, AcmeShop } from"),
        (f"new {TITLE}(base); client.{TITLE}", "new AcmeShop(base); client.AcmeShop"),
        (f"### {TITLE}Down, #{NAME}down", "### AcmeShopDown, #acmeshopdown"),
        (f"{NAME}_logins_total", "acme_shop_logins_total"),
        (f"{CAPITALS}_VERSION", "ACME_SHOP_VERSION"),
        (f"CREATE DATABASE {NAME}", "CREATE DATABASE acme_shop"),
        (f"postgres://{NAME}:word@{NAME}-db:5432/{NAME}", "postgres://acme_shop:word@acme-shop-db:5432/acme_shop"),
        (f"kubectl -n {NAME} exec deploy/{NAME}", "kubectl -n acme-shop exec deploy/acme-shop"),
        (f"registry.example.com/{NAME}:1", "registry.example.com/acme-shop:1"),
        (f"${{DB_USER:-{NAME}}}", "${DB_USER:-acme_shop}"),
        (f"{NAME}-doctor, pre-{NAME}", "acme-shop-doctor, pre-acme-shop"),
    ],
)  # fmt: skip
def test_each_form_of_the_name_is_replaced(checkout: Path, given: str, expected: str) -> None:
    path = checkout / "file.txt"
    path.write_text(given)

    assert list(rename(checkout, ACME)) == [path]
    assert path.read_text() == expected
    assert list(rename(checkout, ACME)) == []


def test_manifests_have_hyphens_except_in_the_address_of_a_database(checkout: Path) -> None:
    path = checkout / "deploy/kubernetes/secret.yaml"
    path.write_text(f"name: {NAME}\nurl: postgres://{NAME}:word@db:5432/{NAME}\n")

    list(rename(checkout, ACME))

    assert path.read_text() == "name: acme-shop\nurl: postgres://acme_shop:word@db:5432/acme_shop\n"


def test_files_are_renamed_and_others_are_left_alone(checkout: Path) -> None:
    (checkout / f"{NAME}.js").write_text("")
    left = {
        "LICENSE": TITLE,
        ".git/config": NAME,
        ".venv/lib/x.py": NAME,
        "env/pyvenv.cfg": NAME,
        "env/x.py": NAME,
        "secrets/key": NAME,
        "image.png": f"\0{NAME}",
    }
    for name, text in left.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text)
    (checkout / "link").symlink_to("nowhere")

    list(rename(checkout, ACME))

    assert (checkout / "acme_shop.js").exists()
    assert not (checkout / f"{NAME}.js").exists()
    assert {name: (checkout / name).read_text() for name in left} == left


def test_the_variables_of_dotenv_are_renamed_and_its_database_is_kept(checkout: Path) -> None:
    (checkout / ".env").write_text(f"{CAPITALS}_VERSION=1\nDB_NAME={NAME}\n")

    call_command("renameproject", "Acme Shop", "acme_shop")

    assert (checkout / ".env").read_text() == f"ACME_SHOP_VERSION=1\nDB_NAME={NAME}\n"


def test_a_merge_of_the_template_is_renamed_by_another_run(
    checkout: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkout / "module.py"
    for name in (NAME, "acme_shop"):
        settings.SERVICE_NAME = name
        path.write_text(f'NAMES   = ["{TITLE}", "{NAME}"]\n')

        call_command("renameproject", "Acme Shop", "acme_shop")

        # Ruff formats what the command changed.
        assert path.read_text() == 'NAMES = ["Acme Shop", "acme_shop"]\n'
    call_command("renameproject", "Acme Shop", "acme_shop")
    assert capsys.readouterr().out == "Changed 1 files.\nChanged 1 files.\nChanged 0 files.\n"


def test_a_second_name_is_rejected(checkout: Path, settings: Settings) -> None:
    settings.SERVICE_NAME = "acme_shop"

    with pytest.raises(CommandError, match="The project has the name acme_shop"):
        call_command("renameproject", "Other", "other")


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("acme", "acme"),
        ("Acme  Shop", "acme"),
        ('Acme "Shop"', "acme"),
        ("A" * 31, "acme"),
        ("Acme", "Acme"),
        ("Acme", "acme-shop"),
        ("Acme", "acme__shop"),
        ("Acme", "a" * 31),
        ("Acme", "class"),
        ("Acme", "json"),
        ("Acme", "accounts"),
        ("Acme", "postgres"),
    ],
)
def test_an_invalid_name_is_rejected(checkout: Path, title: str, name: str) -> None:
    with pytest.raises(CommandError):
        call_command("renameproject", title, name)


def test_the_project_is_renamed_in_development_only(checkout: Path, settings: Settings) -> None:
    settings.DEBUG = False

    with pytest.raises(CommandError, match="requires DEBUG"):
        call_command("renameproject", "Acme Shop", "acme_shop")
