import re
import runpy
from pathlib import Path

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from config import __version__, urls

LINKS = {"/api/v1", "/api/v1/docs", "/api/v1/schema", "/health/ready"}


def links(page: str) -> set[str]:
    return set(re.findall(r'<a href="([^"]+)"', page))


@pytest.mark.parametrize(
    ("is_development", "is_enabled", "more"),
    [
        (False, True, set()),
        (True, True, {"/admin/", "/example/", "/mail"}),
        (True, False, {"/example/", "/mail"}),
    ],
)
def test_the_start_page_links_the_console_the_example_and_emails_in_development_only(
    client: APIClient, settings: Settings, is_development: bool, is_enabled: bool, more: set[str]
) -> None:
    settings.DEBUG, settings.ADMIN_ENABLED = is_development, is_enabled
    settings.MAILBOX = settings.MAILBOX if is_development else None

    response = client.get("/")

    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/html")
    assert links(response.content.decode()) == LINKS | more


def test_the_links_of_the_start_page_work(client: APIClient, settings: Settings, db: None) -> None:
    settings.DEBUG = True

    for path in links(client.get("/").content.decode()):
        assert client.get(path, follow=True).status_code == 200, path


EXAMPLE = ["", "verify-email", "invite", "app.js", "style.css", "latchkey.js"]


@pytest.mark.parametrize("name", EXAMPLE)
def test_the_example_is_served_in_development_only(
    client: APIClient, settings: Settings, name: str
) -> None:
    assert client.get(f"/example/{name}").status_code == 404
    settings.DEBUG = True

    response = client.get(f"/example/{name}")

    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-cache"
    assert client.post(f"/example/{name}").status_code == 405


def test_nothing_else_is_served_below_the_example(client: APIClient, settings: Settings) -> None:
    assert client.get("/example").status_code == 404
    settings.DEBUG = True

    assert client.get("/example").headers["Location"] == "/example/"
    for name in ("nothing.js", "..%2Fapp.js", "schema.d.ts", "index.html%00"):
        assert client.get(f"/example/{name}").status_code in {400, 404}, name


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/"])
def test_the_index_names_the_documentation(client: APIClient, path: str) -> None:
    assert client.get(path).json() == {
        "service": "latchkey",
        "version": __version__,
        "documentation": "/api/v1/docs",
        "schema": "/api/v1/schema",
    }


def test_files_of_users_have_a_url_in_development_only(
    client: APIClient, settings: Settings, tmp_path: Path, db: None
) -> None:
    (tmp_path / "a.html").write_text("<script>alert(1)</script>")
    settings.MEDIA_ROOT = str(tmp_path)
    production = client.get("/media/a.html")
    settings.DEBUG = True
    settings.ROOT_URLCONF = tuple(runpy.run_path(urls.__file__)["urlpatterns"])

    response = client.get("/media/a.html")

    assert production.status_code == 404
    assert (response.status_code, b"".join(response.streaming_content)) == (
        200,
        b"<script>alert(1)</script>",
    )
    response.close()
    assert response.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert client.get("/media/../manage.py").status_code == 400
