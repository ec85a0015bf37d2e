"""No parameters of the console cause a server error."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group
from django.db.models import Model
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from accounts.models import User
from conftest import PASSWORD, SignIn
from console.filters import LOOKUPS
from tests.articles.models import Article
from tests.rig.factors import enrol

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.heavy]

VALUES = [
    "abc", "", "0", "-1", "99999999999999999999", "-99999999999999999999", "9" * 4000, "1e400",
    "NaN", "yesterday", "0000-00-00", "99999-01-01", "2026-02-30T99:99", "None", "true", "\x00",
    "a\x00b", "\ud800", "\U000e0001", "%", "'", '"', "\\", "(", "[", "*", "{}", ",", ",,,", "1,abc",
    "a" * 100_000, "a " * 2000, "٣", "::1%eth0", "999.999.999.999", "../../etc/passwd",
    "00000000-0000-0000-0000-00000000000g", "<script>alert(1)</script>",
]  # fmt: skip
PARAMETERS = [
    "o", "p", "q", "e", "all", "_facets", "_popup", "_to_field", "_changelist_filters", "pk",
    "pk__in", "nothing", "password", "password__startswith", "user__password__startswith", "__",
    "a__b", "_", "", "state",
]  # fmt: skip
PAGES = ["change/", "delete/", "history/", "password/", "end-sessions/", "set/deactivate/", ""]


@pytest.fixture(autouse=True)
def rows(user: User, sign_in: SignIn) -> None:
    sign_in(user)
    Article.objects.create(owner=user, title="Lamp", amount=1)
    Group.objects.get_or_create(name="Readers")


def models() -> list[type[Model]]:
    return [model for model in apps.get_models() if admin.site.is_registered(model)]


def page_of(model: type[Model], name: str = "changelist") -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}")


def query(**parameters: str) -> str:
    return urlencode(parameters, errors="surrogatepass")


def lookups(model: type[Model]) -> Iterator[str]:
    """Yield the lookups of every field (those that are rejected once for each type), and more."""
    seen: set[tuple[type[Any], str]] = set()
    for field in model._meta.get_fields():
        yield field.name
        for name in getattr(field, "get_lookups", dict)():
            if name in LOOKUPS or (type(field), name) not in seen:
                seen.add((type(field), name))
                yield f"{field.name}__{name}"
        for remote in field.related_model._meta.get_fields() if field.related_model else ():
            yield f"{field.name}__{remote.name}__exact"


def check(responses: Iterable[tuple[str, HttpResponse]], allowed: set[int]) -> None:
    faults = {
        f"{response.status_code}: {name[:100]!r}"
        for name, response in responses
        if response.status_code not in allowed
        or (response.status_code >= 400 and "text/html" not in response.headers["Content-Type"])
    }
    assert not faults


def test_a_list_is_rejected_or_shown(console: Client) -> None:
    values = itertools.cycle(VALUES)
    queries = [
        f"{page_of(model)}?{query(**{name: value})}"
        for model in models()
        for name, value in itertools.chain(
            ((name, next(values)) for name in lookups(model)),
            (("q", value) for value in VALUES),
            ((name, next(values)) for name in PARAMETERS),
        )
    ]

    check(((path, console.get(path)) for path in queries), {200, 400})


def test_every_value_fits_every_exact_lookup_of_one_list(console: Client) -> None:
    names = ["id", "user__id__exact", "created_at__gte", "ip_address", "state", "o", "p", "pk"]
    queries = [
        f"/admin/accounts/session/?{query(**{name: value})}"
        for name, value in itertools.product(names, VALUES)
    ]

    check(((path, console.get(path)) for path in queries), {200, 400})


def test_an_action_is_rejected_or_done(console: Client) -> None:
    actions = ["end", "end_all_of_users", "end_sessions", "deactivate", "activate"]
    actions += ["force_password_change", "delete_selected", "nothing", "", "\x00"]
    selections = [["abc"], [], [""], ["9" * 20], ["1", "abc"], ["\x00"], ["-1"], ["NaN"]]
    more = itertools.cycle(
        [
            {"index": "0"},
            {"index": "abc", "select_across": "x", "post": "yes"},
            {"select_across": "0", "confirmed": "yes"},
        ]
    )
    bodies = [
        (page_of(model), {"action": action, "_selected_action": selection, **next(more)})
        for model in models()
        for action, selection in itertools.product(actions, selections)
    ]

    check(
        ((f"{path} {body}", console.post(path, body)) for path, body in bodies),
        {200, 302, 400, 403},
    )


def test_a_page_is_rejected_or_not_found(console: Client) -> None:
    methods = itertools.cycle([console.get, console.get, console.post])
    pages = itertools.cycle(PAGES)
    requests = [
        (next(methods), f"{page_of(model)}{quote(value, errors='surrogatepass')}/{next(pages)}")
        for model in models()
        for value in VALUES * 2
    ]

    check(
        ((path, method(path)) for method, path in requests),
        {301, 302, 400, 403, 404, 405},
    )


def test_a_form_that_is_filled_by_its_address_is_shown(console: Client) -> None:
    fields = {Article: "owner", User: "groups", Group: "permissions"}
    values = itertools.cycle(VALUES)
    paths = [
        f"{page_of(model, 'add')}?{query(**{name: value})}"
        for model, field in fields.items()
        for name, value in [
            *((field, value) for value in VALUES),
            *((name, next(values)) for name in PARAMETERS),
            *((field.name, next(values)) for field in model._meta.get_fields()),
        ]
    ]

    check(((path, console.get(path)) for path in paths), {200, 400})


def test_a_page_of_the_site_is_rejected_or_shown(console: Client) -> None:
    def autocomplete(**parameters: str) -> str:
        known = {"app_label": "articles", "model_name": "article", "field_name": "owner"}
        return f"/admin/autocomplete/?{query(**{**known, **parameters})}"

    fields = {
        (model._meta.app_label, str(model._meta.model_name), field.name)
        for model in apps.get_models()
        for field in model._meta.get_fields()
    }
    values = [quote(value, errors="surrogatepass") for value in VALUES]
    paths = [
        *(f"/admin/r/{number}/{value}/" for number in range(1, 12, 4) for value in values),
        *(f"/admin/r/{value}/1/" for value in values),
        *(autocomplete(term=value) for value in VALUES),
        *(autocomplete(page=value) for value in VALUES),
        *(autocomplete(app_label=value) for value in VALUES),
        *(
            autocomplete(app_label=app, model_name=model, field_name=field)
            for app, model, field in sorted(fields)
        ),
        *(f"/admin/jsi18n/?{query(next=value)}" for value in VALUES),
        *(f"/admin/login/?{query(next=value)}" for value in VALUES),
    ]

    check(((path, console.get(path)) for path in paths), {200, 301, 302, 400, 403, 404})


@pytest.mark.parametrize("page", ["login", "login/second-factor", "login/password"])
def test_a_form_of_the_sign_in_is_rejected_or_shown_again(
    make_user: Any, page: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.AUTH_RATE_LIMIT = settings.LOGIN_FAILURE_LIMIT = (1_000_000, 60)
    settings.CODE_FAILURE_LIMIT = (1_000_000, 60)
    monkeypatch.setattr("accounts.models.mfa_tickets.TRIES", 1_000)
    enrol(make_user("susan", is_staff=True))
    make_user("carol", is_staff=True, must_change_password=True)
    browser = Client(raise_request_exception=False)
    name = "carol" if page.endswith("password") else "susan"
    browser.post("/admin/login/", {"username": name, "password": PASSWORD})
    names = ["username", "password", "code", "credential", "next"]
    known = dict.fromkeys([*names, "new_password1"], "a rainy night in June")
    texts = [value.replace("\ud800", "") for value in VALUES]
    bodies = [known | {name: text} for name, text in zip(itertools.cycle(names), texts * 3)]
    bodies += [{name: text} for name in ("code", "credential") for text in texts]

    check(
        ((f"{page} {body}", browser.post(f"/admin/{page}/", body)) for body in bodies),
        {200, 400},
    )


@pytest.mark.parametrize("value", ['"abcdefgh\\000"', '"abcdefgh\\355\\240\\200"', "a" * 4000])
def test_an_invalid_session_cookie_is_anonymous(value: str) -> None:
    stranger = Client(raise_request_exception=False)

    for name in ("sessionid", "csrftoken", "messages"):
        cookie = {"HTTP_COOKIE": f"{name}={value}"}
        paths = ["/admin/", "/admin/login/", "/admin/accounts/user/"]
        check(((name, stranger.get(path, **cookie)) for path in paths), {200, 302, 400})
