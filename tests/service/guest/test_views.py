"""Every kind of view that Django and DRF document, below the API and outside it."""

from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from conftest import API, SignIn
from tests.service.guest import views
from tests.service.guest.models import Snippet

pytestmark = [pytest.mark.urls("tests.service.guest.project"), pytest.mark.django_db]
GUEST = f"{API}/guest"


@pytest.fixture
def snippet(user: User) -> Snippet:
    return Snippet.objects.create(title="first", code="print(1)", owner=user)


class TestTutorial:
    @pytest.mark.parametrize("path", ["plain/snippets", "functions/snippets"])
    def test_functions(self, client: APIClient, snippet: Snippet, path: str) -> None:
        created = client.post(f"{GUEST}/{path}/", {"code": "1 + 1"})
        listed = client.get(f"{GUEST}/{path}/")

        assert created.status_code == 201
        assert [row["code"] for row in listed.json()] == ["print(1)", "1 + 1"]
        assert created.json()["url"].endswith(f"/guest/snippets/{created.json()['id']}/")

    def test_a_plain_function_has_an_anonymous_user(
        self, client: APIClient, snippet: Snippet
    ) -> None:
        response = client.get(f"{GUEST}/plain/snippets/{snippet.pk}/")

        assert response.json() == {"id": snippet.pk, "user": "AnonymousUser"}

    def test_a_viewset(self, user: User, sign_in: SignIn, client: APIClient) -> None:
        device = sign_in(user)

        created = device.post(f"{GUEST}/snippets/", {"code": "1"})
        url = created.json()["url"]
        changed = device.patch(url, {"title": "new"})
        replaced = device.put(url, {"code": "2"})
        highlighted = client.get(f"{url}highlight/")
        deleted = device.delete(url)

        assert (created.status_code, created.json()["owner"]) == (201, "alice")
        assert (changed.status_code, replaced.status_code) == (200, 200)
        assert highlighted.content == b"<pre>2</pre>"
        assert (deleted.status_code, Snippet.objects.count()) == (204, 0)

    def test_the_root_of_a_router(self, client: APIClient) -> None:
        response = client.get(f"{GUEST}/", HTTP_AUTHORIZATION="")

        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"

    @pytest.mark.parametrize(
        "path", ["snippets/", "snippets", "snippets.json", "functions/list", "functions/list/",
                 "functions/list.json", "functions/snippets.json", "functions/snippets"]
    )  # fmt: skip
    def test_every_form_of_a_path(self, client: APIClient, snippet: Snippet, path: str) -> None:
        response = client.get(f"{GUEST}/{path}")

        assert response.status_code == 200
        assert "print(1)" in response.content.decode()

    def test_the_other_form_of_a_path_takes_a_body(self, user: User, sign_in: SignIn) -> None:
        response = sign_in(user).post(f"{GUEST}/snippets", {"code": "1"})

        assert response.status_code == 201
        assert response.wsgi_request.path == f"{GUEST}/snippets/"

    def test_the_links_of_pages_keep_the_form(self, client: APIClient, user: User) -> None:
        Snippet.objects.bulk_create(Snippet(code=str(n), owner=user) for n in range(3))

        body = client.get(f"{GUEST}/snippets/?limit=2").json()

        assert client.get(body["next"]).json()["count"] == 3


class TestMethods:
    @pytest.mark.parametrize(
        ("path", "allow"),
        [
            ("functions/snippets/", "GET, HEAD, OPTIONS, POST"),
            ("functions/list", "GET, HEAD, OPTIONS, POST"),
            ("class", "GET, HEAD, OPTIONS"),
            ("class/get", "GET, HEAD, OPTIONS"),
            ("async/class", "GET, HEAD, OPTIONS"),
            ("cached", "GET, HEAD, OPTIONS"),
            ("restaurants/", "GET, HEAD, OPTIONS"),
            ("orders/1/ship/", "OPTIONS, POST"),
        ],
    )
    def test_the_methods_of_a_view(self, client: APIClient, path: str, allow: str) -> None:
        options = client.options(f"{GUEST}/{path}")
        rejected = client.delete(f"{GUEST}/{path}")

        assert (options.status_code, options.content) == (200, b"")
        assert options.headers["Allow"] == rejected.headers["Allow"] == allow
        assert (rejected.status_code, rejected.json()["code"]) == (405, "method_not_allowed")

    @pytest.mark.parametrize(
        "path", ["functions/snippets/", "functions/list", "class", "class/get", "async/class",
                 "cached", "plain/snippets/", "async"]
    )  # fmt: skip
    def test_head_works_wherever_get_works(self, client: APIClient, path: str) -> None:
        response = client.head(f"{GUEST}/{path}")

        assert response.status_code == 200 or path == "plain/snippets/"
        assert response.wsgi_request.method == "HEAD"

    def test_a_view_may_dispatch_by_itself(self, client: APIClient) -> None:
        for method in ("GET", "POST", "DELETE", "OPTIONS"):
            response = client.generic(method, f"{GUEST}/class/dispatch")
            assert response.json() == {"method": method}

    def test_a_view_may_respond_to_options(self, client: APIClient) -> None:
        assert client.options(f"{GUEST}/class/options").json() == {"described": True}


class TestViews:
    def test_async_views(self, client: APIClient) -> None:
        assert client.get(f"{GUEST}/async").json() == {"count": 0}
        assert client.get(f"{GUEST}/async/class").json() == {"is": "async"}

    def test_another_version_of_the_api(self, client: APIClient) -> None:
        response = client.get("/api/v2/class/")

        assert response.json() == {"method": "GET"}
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert client.delete("/api/v2/class").json()["code"] == "method_not_allowed"

    def test_a_response_may_be_cached(self, client: APIClient) -> None:
        views.CachedView.calls = 0

        first, second = (client.get(f"{GUEST}/cached") for _ in range(2))

        assert first.json() == second.json() == {"calls": 1}
        assert second.headers["X-Own"] == "kept"
        assert second.headers["Content-Type"] == "application/json"
        assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]

    @pytest.mark.parametrize(
        ("accept", "media_type"),
        [
            ("text/plain", "text/plain"),
            ("application/json", "application/json"),
            ("image/png", "application/json"),
            ("", "application/json"),
            ("*/*", "application/json"),
        ],
    )
    def test_a_view_may_have_several_renderers(
        self, client: APIClient, accept: str, media_type: str
    ) -> None:
        response = client.get(f"{GUEST}/rendered", HTTP_ACCEPT=accept)

        assert response.status_code == 200
        assert response.headers["Content-Type"].partition(";")[0] == media_type

    def test_the_parser_of_drf(self, client: APIClient) -> None:
        response = client.post(f"{GUEST}/parsed", [1, {"a": None}])

        assert response.json() == {"received": [1, {"a": None}]}


class TestPages:
    def test_a_page_may_use_its_own_files(self, client: APIClient) -> None:
        response = client.get("/about/")

        assert b"<h1>About</h1>" in response.content
        assert response.headers["Content-Security-Policy"].startswith("default-src 'self'; ")

    def test_a_view_may_set_its_policy(self, client: APIClient) -> None:
        response = client.get("/map/")

        policy = response.headers["Content-Security-Policy"]
        assert policy == "img-src https://tiles.example.com"

    def test_the_setting_of_django_sets_the_policy_of_pages(
        self, client: APIClient, settings: Settings
    ) -> None:
        settings.SECURE_CSP = {"default-src": ["'self'", "https://a.example"], "img-src": ["*"]}

        def policy(path: str) -> str:
            return client.get(path).headers["Content-Security-Policy"]

        assert policy("/about/") == "default-src 'self' https://a.example; img-src *"
        assert policy("/map/") == "img-src https://tiles.example.com"
        assert policy("/admin/login/").startswith("default-src 'self'; base-uri 'none'")
        assert policy(f"{GUEST}/class").startswith("default-src 'none'")


class TestSchema:
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = SchemaGenerator(
            urlconf="tests.service.guest.project"
        ).get_schema(public=True)
        validate_schema(document)
        return document

    def test_an_app_documents_its_own_errors(self, capsys: pytest.CaptureFixture[str]) -> None:
        operation = self.document()["paths"][f"{GUEST}/orders/{{id}}/"]["get"]

        conflict, missing = operation["responses"]["409"], operation["responses"]["404"]
        assert "The order has been shipped. Code: `order_shipped`." in conflict["description"]
        assert "`out_of_stock`" in conflict["description"]
        assert conflict["content"] == missing["content"]
        assert "`order_archived`" in operation["responses"]["410"]["description"]

    def test_a_view_may_be_left_out(self) -> None:
        assert f"{GUEST}/internal" not in self.document()["paths"]

    def test_the_codes_are_open(self) -> None:
        code = self.document()["components"]["schemas"]["Problem"]["properties"]["code"]

        assert "enum" not in code
        assert "conflict" in code["examples"]
