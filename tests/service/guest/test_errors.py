"""What an app raises or returns is a problem document with the app's status, code and detail."""

from decimal import Decimal
from typing import Any

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient
from rest_framework.throttling import SimpleRateThrottle

from accounts.models import User
from conftest import API, SignIn
from tests.service.guest.models import Customer, Order, Snippet
from tests.service.guest.views import OrderViewSet

pytestmark = [pytest.mark.urls("tests.service.guest.project"), pytest.mark.django_db]
GUEST = f"{API}/guest"


def problem_of(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.content
    assert response.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (body["type"], body["status"]) == ("about:blank", status)
    assert body["request_id"] == response.headers["X-Request-ID"]
    return body


@pytest.fixture
def order() -> Order:
    customer = Customer.objects.create(name="Ada")
    return Order.objects.create(customer=customer, number="1")


class TestRaised:
    @pytest.mark.parametrize("route", ["errors", "plain/errors"])
    @pytest.mark.parametrize(
        ("name", "status", "code", "detail"),
        [
            ("409", 409, "order_shipped", "The order has been shipped."),
            ("402", 402, "credit_used_up", "The credit is used up."),
            ("410", 410, "order_archived", "The order was archived."),
            ("412", 412, "order_changed", "Read it again."),
            ("422", 422, "validation_error", "1 field needs attention."),
            ("own-403", 403, "closed_on_mondays", "The shop is closed on Mondays."),
            ("own-text", 403, "permission_denied", "Ask a member of the staff."),
            ("own-404", 404, "no_such_order", "No such order."),
            ("own-400", 400, "bad_page", "The page must be a number."),
            ("mapping", 409, "few", "Two are left."),
            ("list", 409, "conflict", "The request conflicts with another resource."),
            ("django-403", 403, "permission_denied", "Come back on Tuesday."),
            ("django-404", 404, "not_found", "The order is lost."),
        ],
    )
    def test_an_exception_keeps_its_status_code_and_detail(
        self, client: APIClient, route: str, name: str, status: int, code: str, detail: str
    ) -> None:
        body = problem_of(client.get(f"{GUEST}/{route}/{name}"), status)

        assert (body["code"], body["detail"]) == (code, detail)

    def test_the_other_members_of_a_detail_are_kept(self, client: APIClient) -> None:
        assert problem_of(client.get(f"{GUEST}/errors/mapping"), 409)["left"] == "2"

    @pytest.mark.parametrize("path", ["errors/model", "files/nothing", "generic/0"])
    def test_a_text_of_django_is_not_passed_on(self, client: APIClient, path: str) -> None:
        """It names the model, or the path of a file."""
        body = problem_of(client.get(f"{GUEST}/{path}"), 404)

        assert body["detail"] == "The requested resource does not exist."

    def test_a_permission_has_its_own_code_and_text(
        self, user: User, stranger: User, sign_in: SignIn
    ) -> None:
        snippet = Snippet.objects.create(code="1", owner=user)

        response = sign_in(stranger).delete(f"{GUEST}/snippets/{snippet.pk}/")

        body = problem_of(response, 403)
        assert body["code"] == "not_the_owner"
        assert body["detail"] == "Only the owner may change a snippet."
        assert Snippet.objects.exists()

    def test_the_validation_of_a_model_is_an_error_of_its_field(
        self, client: APIClient, order: Order
    ) -> None:
        assert client.post(f"{GUEST}/orders/{order.pk}/cancel/").status_code == 204

        body = problem_of(client.post(f"{GUEST}/orders/{order.pk}/cancel/"), 400)

        assert body["code"] == "validation_error"
        assert body["errors"] == [{"field": "state", "code": "closed", "detail": "It is closed."}]


class TestDatabase:
    def test_a_protected_object_is_not_deleted(self, client: APIClient, order: Order) -> None:
        body = problem_of(client.delete(f"{GUEST}/customers/{order.customer.pk}/"), 409)

        assert body["code"] == "conflict"
        assert body["detail"] == "The resource cannot be deleted because others refer to it."
        assert Customer.objects.exists()

    def test_a_value_that_exists_is_a_conflict(self, client: APIClient, order: Order) -> None:
        body = problem_of(client.post(f"{GUEST}/customers/", {"name": "Ada"}), 409)

        assert body["code"] == "conflict"

    @pytest.mark.django_db(transaction=True)
    def test_a_value_that_a_constraint_rejects_is_a_400(
        self, client: APIClient, order: Order, caplog: pytest.LogCaptureFixture
    ) -> None:
        response = client.patch(f"{GUEST}/orders/{order.pk}/", {"total": "-1"})

        body = problem_of(response, 400)
        assert body["code"] == "validation_error"
        assert [error["field"] for error in body["errors"]] == [None]
        assert "guest_order_total" in caplog.text
        assert "guest_order" not in response.content.decode()
        order.refresh_from_db()
        assert order.total == Decimal(0)

    def test_a_missing_value_is_a_400(self, client: APIClient) -> None:
        body = problem_of(client.post(f"{GUEST}/forgetful", {"number": "1"}), 400)

        assert body["code"] == "validation_error"

    @pytest.mark.parametrize(
        "query",
        [
            *("at_least=many", "at_least=99999999999999999999", "due_on=tomorrow"),
            *("due_on=2026-99-99", "ordering=customer__label", "ordering=-customer__label,number"),
            *("customer=x", "total=x", "due=x", "page=x", "limit=x", "cursor=x", "search=%00"),
            "%00=1",
        ],
    )
    def test_no_query_chooses_a_500(self, client: APIClient, order: Order, query: str) -> None:
        response = client.get(f"{GUEST}/orders/?{query}")

        assert response.status_code in {200, 400}
        assert response.status_code == 400 or "99999" in query

    @pytest.mark.parametrize("pk", ["x", "%00", "9" * 30, "-1", "1.5"])
    def test_no_path_chooses_a_500(self, client: APIClient, pk: str) -> None:
        for path in ("orders", "snippets", "restaurants"):
            assert client.get(f"{GUEST}/{path}/{pk}/").status_code in {400, 404}

    def test_a_defect_is_a_500(self, client: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
        def get_queryset(view: OrderViewSet) -> Any:
            return Order.objects.filter(nothing=1)

        monkeypatch.setattr(OrderViewSet, "get_queryset", get_queryset)

        problem_of(client.get(f"{GUEST}/orders/"), 500)


class TestReturned:
    def test_the_members_of_a_body_are_kept(self, client: APIClient, order: Order) -> None:
        body = problem_of(client.post(f"{GUEST}/orders/{order.pk}/ship/"), 409)

        assert body["code"] == "conflict"
        assert (body["error"], body["missing"]) == ("Nothing is left.", [1, 2])

    def test_a_json_response_keeps_its_members_and_cookies(self, client: APIClient) -> None:
        response = client.get(f"{GUEST}/texts/json")

        body = problem_of(response, 409)
        assert (body["detail"], body["other"]) == ("Try the other one.", "/b")
        assert response.cookies["seen"].value == "1"

    def test_a_text_is_the_detail(self, client: APIClient) -> None:
        body = problem_of(client.get(f"{GUEST}/texts/bad"), 400)

        assert (body["code"], body["detail"]) == ("parse_error", "The coupon is missing.")

    @pytest.mark.parametrize(
        ("name", "status"), [("page", 403), ("broken-json", 409), ("long", 409)]
    )
    def test_what_is_no_text_is_replaced(self, client: APIClient, name: str, status: int) -> None:
        body = problem_of(client.get(f"{GUEST}/texts/{name}"), status)

        assert "<" not in body["detail"]
        assert len(body["detail"]) < 100

    @pytest.mark.parametrize("path", ["plain/snippets/", "functions/snippets/"])
    def test_the_errors_of_a_serializer_are_errors_of_fields(
        self, client: APIClient, path: str
    ) -> None:
        body = problem_of(client.post(f"{GUEST}/{path}", {"title": "x" * 101}), 400)

        assert body["code"] == "validation_error"
        assert [error["field"] for error in body["errors"]] == ["title", "code"]
        code = "max_length" if path.startswith("functions") else "invalid"
        assert body["errors"][0]["code"] == code

    def test_an_empty_404_of_a_function_is_a_problem(self, client: APIClient) -> None:
        assert problem_of(client.get(f"{GUEST}/plain/snippets/0/"), 404)["code"] == "not_found"


class TestAuthentication:
    def test_another_scheme_has_its_own_challenge(self, client: APIClient) -> None:
        response = client.get(f"{GUEST}/basic")

        problem_of(response, 401)
        assert response.headers["WWW-Authenticate"] == 'Basic realm="api"'

    def test_an_own_authentication_may_set_any_auth(self, client: APIClient, user: User) -> None:
        response = client.get(f"{GUEST}/key", HTTP_X_USERNAME="alice")

        assert response.json() == {"user": "alice", "auth": "a key"}

    def test_a_rejected_request_is_a_problem(self, client: APIClient) -> None:
        problem_of(client.get(f"{GUEST}/key"), 401)


class TestLimits:
    def test_the_throttles_of_drf_count(self, client: APIClient) -> None:
        statuses = [client.get(f"{GUEST}/throttled").status_code for _ in range(4)]

        assert statuses == [200, 200, 200, 429]

    def test_a_scope_of_the_settings_counts(
        self, client: APIClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", {"uploads": "1/day"})

        first, second = (client.get(f"{GUEST}/scoped") for _ in range(2))

        assert first.status_code == 200
        assert problem_of(second, 429)["code"] == "rate_limited"
        assert int(second.headers["Retry-After"]) > 1


class TestBodies:
    @pytest.mark.parametrize("body", [b"[" * 100_000, b"{", b'{"a": NaN}', b"\xff"])
    def test_the_parser_of_drf_rejects_what_it_cannot_read(
        self, client: APIClient, body: bytes
    ) -> None:
        response = client.generic("POST", f"{GUEST}/parsed", body, "application/json")

        problem = problem_of(response, 400)
        assert (problem["code"], problem["detail"]) == ("parse_error", "The request is malformed.")

    def test_a_view_may_accept_an_array(self, client: APIClient) -> None:
        customer = Customer.objects.create(name="Ada")
        orders = [{"customer": customer.pk, "number": str(number)} for number in range(3)]

        response = client.post(f"{GUEST}/orders/bulk/", orders)

        assert response.status_code == 201
        assert [row["number"] for row in response.json()] == ["0", "1", "2"]

    def test_the_errors_of_an_array_name_the_place(self, client: APIClient) -> None:
        customer = Customer.objects.create(name="Ada")
        orders = [{"customer": customer.pk, "number": "1"}, {"customer": 0}, 5]

        body = problem_of(client.post(f"{GUEST}/orders/bulk/", orders), 400)

        fields = {error["field"] for error in body["errors"]}
        assert fields == {"1.customer", "1.number", "2"}
        assert not Order.objects.exists()

    @pytest.mark.parametrize(
        ("body", "place"), [(b'[{"a": "\\u0000"}]', "0"), (b'[1, "\\ud800"]', "1")]
    )
    def test_a_text_that_cannot_be_stored_is_an_error_of_its_place(
        self, client: APIClient, body: bytes, place: str
    ) -> None:
        response = client.generic("POST", f"{GUEST}/orders/bulk/", body, "application/json")

        assert [error["field"] for error in problem_of(response, 400)["errors"]] == [place]

    def test_other_views_accept_objects_only(self, client: APIClient) -> None:
        body = problem_of(client.post(f"{GUEST}/orders/", [{}]), 400)

        assert body["code"] == "parse_error"


class TestErrorPages:
    """Outside the API, an app's error pages are its own."""

    def test_a_returned_page_is_kept(self, client: APIClient) -> None:
        response = client.get("/members/")

        assert (response.status_code, response.content) == (403, b"<h1>Members only</h1>")
        assert response.headers["Content-Security-Policy"].startswith("default-src 'self'")

    @pytest.mark.parametrize("debug", [True, False])
    @pytest.mark.parametrize(
        ("path", "status"), [("/moved/", 404), ("/broken/", 500), ("/no", 404)]
    )
    def test_an_exception_is_a_problem_without_a_page_for_it(
        self, client: APIClient, settings: Settings, path: str, status: int, debug: bool
    ) -> None:
        settings.DEBUG, settings.ALLOWED_HOSTS = debug, ["testserver"]

        assert "secret" not in str(problem_of(client.get(path), status))

    @pytest.mark.urls("tests.service.guest.pages")
    @pytest.mark.parametrize("debug", [True, False])
    @pytest.mark.parametrize(
        ("path", "status", "page"),
        [
            ("/moved/", 404, b"<h1>Not here</h1>"),
            ("/no", 404, b"<h1>Not here</h1>"),
            ("/broken/", 500, b"<h1>Sorry</h1>"),
        ],
    )
    def test_the_handlers_of_the_urlconf_make_the_pages(
        self,
        client: APIClient,
        settings: Settings,
        path: str,
        status: int,
        page: bytes,
        debug: bool,
    ) -> None:
        settings.DEBUG, settings.ALLOWED_HOSTS = debug, ["testserver"]

        response = client.get(path)

        assert (response.status_code, response.content) == (status, page)
        assert problem_of(client.get(f"{API}/nothing"), 404)
        assert b"Not here" not in client.get("/admin/nothing", follow=True).content

    def test_a_template_makes_the_page(self, client: APIClient, settings: Settings) -> None:
        loader = ("django.template.loaders.locmem.Loader", {"404.html": "<h1>{{ exception }}</h1>"})
        [engine] = settings.TEMPLATES
        options = {**engine["OPTIONS"], "loaders": [loader]}
        settings.TEMPLATES = [{**engine, "APP_DIRS": False, "OPTIONS": options}]

        response = client.get("/no")

        assert response.status_code == 404
        assert response.content.startswith(b"<h1>")

    @pytest.mark.urls("tests.service.guest.pages")
    def test_a_page_that_fails_is_a_problem(
        self, client: APIClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tests.service.guest.views.HttpResponse", None)

        problem_of(client.get("/no"), 500)
