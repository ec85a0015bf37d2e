"""The startup rules, by the ids of their errors."""

import importlib.util
import re
import secrets
import string
from pathlib import Path

import pytest
from django.core.checks import run_checks
from django.core.files.storage import InMemoryStorage
from django.db import connection
from django.urls import include, path
from pytest_django import Settings
from rest_framework.authentication import SessionAuthentication
from rest_framework.throttling import ScopedRateThrottle
from rest_framework.views import APIView

from config import api_checks, checks, email_checks, passkey_checks, rules, storage_checks
from config.mailers import NO_MAILER, parse_mailer
from config.secret_rules import secret_faults
from tests.service.guest.models import Photo

GOOD = {
    "SECRET": ["q8Zr1vXk3mTn7bYw2cJh5sLd9fGp4aEu0", "R6tKx2Nw9Vb4Qm7Zc1Yh8Jp3Ls5Df0Ga"],
    "ACCESS_TOKEN_SECRET": ["Hy7-uN_c4Vp2Lk9Wd6Zb3Xm8Qt1Rf5Js0"],
    "REFRESH_TOKEN_SECRET": ["mB5Vx8Jq2Ws7Nf4Kc9Tz6Lp1Hd3Rg0Yv"],
}


@pytest.fixture(autouse=True)
def production(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that is good outside of DEBUG; each test breaks one thing."""
    settings.DEBUG = False
    settings.SECRETS = dict(GOOD)
    settings.ENVIRONMENT_FAULTS = []
    settings.FAULTY_VARIABLES = set()
    settings.ALLOWED_HOSTS = ["api.example.com"]
    settings.CORS_ALLOW_ALL_ORIGINS = False
    settings.WEB_CONCURRENCY = 2
    settings.CACHE_URL = "redis://localhost"
    settings.BCRYPT_ROUNDS = 14
    settings.MAILER = parse_mailer("smtp+tls://user:word@smtp.example.com")
    settings.EMAIL_ENABLED = True
    settings.DEFAULT_FROM_EMAIL = "Latchkey <no-reply@example.com>"
    settings.PUBLIC_URL, settings.FRONTEND_URL = "https://api.example.com", ""
    settings.WEBAUTHN_RP_ID = "example.com"
    settings.WEBAUTHN_ORIGINS = ["https://app.example.com"]
    settings.MEDIA_ROOT, settings.MEDIA_BUCKET = "/srv/media", ""
    postgres = "django.db.backends.postgresql"
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", postgres)


def found() -> list[str]:
    modules = (checks, email_checks, passkey_checks, api_checks, storage_checks)
    every = [check for module in modules for check in module.CHECKS]
    return [message.id or "" for check in every for message in check()]


def test_a_good_configuration_passes() -> None:
    assert found() == []


def test_the_checks_are_registered(settings: Settings) -> None:
    settings.ALLOWED_HOSTS = []

    assert "config.E005" in {message.id for message in run_checks()}


def test_what_could_not_be_read_is_reported(settings: Settings) -> None:
    settings.ENVIRONMENT_FAULTS = ["PORT must be a whole number.", "DB_HOST is required."]

    assert found() == ["config.E001", "config.E001"]


def test_metrics_have_a_port_of_their_own(settings: Settings) -> None:
    settings.METRICS_PORT = settings.PORT

    assert found() == ["config.E012"]


@pytest.mark.parametrize("name", list(GOOD))
def test_every_secret_is_required(settings: Settings, name: str) -> None:
    settings.SECRETS[name] = [""]

    assert found() == ["config.E002"]


@pytest.mark.parametrize("name", list(GOOD))
@pytest.mark.parametrize("is_fallback", [True, False])
@pytest.mark.parametrize(
    "secret",
    [
        "q8Zr1vXk3mTn7bYw2cJh5sLd9fGp4aE",  # 31 characters
        "short",
        "password" * 5,
        "my-super-secret-password-changeme!!",
        "SECRETdefaultEXAMPLEtestCHANGEMEpassword12",
        "replace-me-with-access-token-secret",
        "abc123XYZ-" * 5,
        "abc123XYZ-" * 5 + "abc",
        "a" * 40,
        "abababababababababababababababababab",
        "aabbccddaabbccddbbaaccddccaabbddbbaacc",
        "0123456789" + "abcdefghijklmnopqrstuvwxyz",
    ],
)
def test_a_weak_secret_is_rejected_in_every_role(
    settings: Settings, name: str, is_fallback: bool, secret: str
) -> None:
    current, *earlier = GOOD[name]
    settings.SECRETS[name] = [current, *earlier, secret] if is_fallback else [secret]

    messages = checks.check_strong_secrets()

    assert messages
    assert {message.id for message in messages} == {"config.E003"}
    for message in messages:
        assert message.msg.startswith(f"{name}_FALLBACKS " if is_fallback else f"{name} ")
        assert secret not in message.msg


def test_a_random_secret_is_never_rejected() -> None:
    """Also if its letters contain a word."""
    for alphabet in (string.hexdigits[:16], string.ascii_letters + string.digits):
        for _ in range(2000):
            secret = "".join(secrets.choice(alphabet) for _ in range(32))
            assert not list(secret_faults(secret))
    assert not list(secret_faults("q8Zr1vXktestmTn7bYw2cJh5sLd9fGp4"))


@pytest.mark.parametrize(
    ("name", "copies"),
    [
        ("ACCESS_TOKEN_SECRET", [GOOD["SECRET"][0]]),
        ("REFRESH_TOKEN_SECRET", [GOOD["ACCESS_TOKEN_SECRET"][0]]),
        ("REFRESH_TOKEN_SECRET", [GOOD["REFRESH_TOKEN_SECRET"][0], GOOD["SECRET"][1]]),
    ],
)
def test_secrets_are_all_different(settings: Settings, name: str, copies: list[str]) -> None:
    settings.SECRETS[name] = copies

    assert found() == ["config.E004"]


@pytest.mark.parametrize("hosts", [[], ["*"], ["api.example.com", "*"]])
def test_hosts_are_named(settings: Settings, hosts: list[str]) -> None:
    settings.ALLOWED_HOSTS = hosts

    assert found() == ["config.E005"]


def test_origins_are_named(settings: Settings) -> None:
    settings.CORS_ALLOW_ALL_ORIGINS = True

    assert found() == ["config.E006"]


def test_what_could_not_be_read_is_not_missing_as_well(settings: Settings) -> None:
    settings.FAULTY_VARIABLES = {"SECRET", "ALLOWED_HOSTS", "CACHE_URL"}
    settings.SECRETS["SECRET"] = [""]
    settings.ALLOWED_HOSTS = []
    settings.CACHE_URL = ""

    assert found() == []


def test_several_processes_share_a_cache(settings: Settings) -> None:
    settings.CACHE_URL = ""
    assert found() == ["config.E007"]

    settings.WEB_CONCURRENCY = 1
    assert found() == []


def test_the_embedded_database_is_for_development(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", "ops.database.embedded")
    assert found() == ["config.E008"]

    settings.DEBUG = True
    assert found() == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert found() == ["config.E009"]


def test_bcrypt_has_a_lowest_cost(settings: Settings) -> None:
    settings.BCRYPT_ROUNDS = 11

    assert found() == ["config.E010"]


class TestEmail:
    def test_a_mailer_is_required(self, settings: Settings) -> None:
        settings.MAILER, settings.EMAIL_ENABLED = {}, False

        assert found() == ["config.E020"]

    def test_disabled_email_needs_no_sender_and_no_links(self, settings: Settings) -> None:
        settings.MAILER, settings.EMAIL_ENABLED = NO_MAILER, False
        settings.DEFAULT_FROM_EMAIL = settings.PUBLIC_URL = ""

        assert found() == []

    @pytest.mark.parametrize("debug", [False, True])
    def test_registration_by_email_needs_email(self, settings: Settings, debug: bool) -> None:
        settings.DEBUG, settings.REGISTRATION = debug, "verified"
        assert found() == []

        settings.MAILER, settings.EMAIL_ENABLED = NO_MAILER, False
        assert found() == ["config.E026"]

    def test_a_missing_mailer_hides_no_other_fault(self, settings: Settings) -> None:
        settings.MAILER, settings.EMAIL_ENABLED = {}, False
        settings.DEFAULT_FROM_EMAIL = settings.PUBLIC_URL = ""

        assert found() == ["config.E020", "config.E022", "config.E025"]

    def test_a_sender_that_is_set_is_an_address_although_email_is_disabled(
        self, settings: Settings
    ) -> None:
        settings.MAILER, settings.EMAIL_ENABLED = NO_MAILER, False
        settings.DEFAULT_FROM_EMAIL = "Shop"

        assert found() == ["config.E025"]

    @pytest.mark.parametrize("url", ["filemail:///tmp/mail", "consolemail://"])
    def test_development_mailers_are_for_development(self, settings: Settings, url: str) -> None:
        settings.MAILER = parse_mailer(url)

        assert found() == ["config.E021"]

    def test_links_need_a_base(self, settings: Settings) -> None:
        settings.PUBLIC_URL = ""
        assert found() == ["config.E022"]

        settings.FRONTEND_URL = "https://app.example.com"
        assert found() == []

    @pytest.mark.parametrize(
        ("url", "faults"),
        [
            ("smtp://smtp.example.com", ["config.E023"]),
            ("smtp://10.0.0.5:25", ["config.E023"]),
            ("smtp://localhost.example.com", ["config.E023"]),
            ("smtp://localhost", []),
            ("smtp://127.0.0.2:1025", []),
            ("smtp://[::1]", []),
            ("smtp+ssl://smtp.example.com", []),
        ],
    )
    def test_passwords_and_links_are_sent_over_tls(
        self, settings: Settings, url: str, faults: list[str]
    ) -> None:
        settings.MAILER = parse_mailer(url)

        assert found() == faults

    def test_links_lead_to_https(self, settings: Settings) -> None:
        settings.PUBLIC_URL = "http://api.example.com"
        settings.FRONTEND_URL = "http://app.example.com"

        assert found() == ["config.E024", "config.E024"]

    @pytest.mark.parametrize(
        ("sender", "is_good"),
        [
            ("a@example.com", True),
            ("Shop <a@example.com>", True),
            ("Shop & Sons, Ltd. <a@example.com>", False),
            ('"Shop & Sons, Ltd." <a@example.com>', True),
            *(
                ("", False),
                ("Shop", False),
                ("<>", False),
                ("a@", False),
                ("a b@example.com", False),
            ),
            *(
                ("a@example.com, b@example.com", False),
                ("a@example.com\nBcc: b@example.com", False),
            ),
        ],
    )
    def test_the_sender_is_an_address(self, settings: Settings, sender: str, is_good: bool) -> None:
        settings.DEFAULT_FROM_EMAIL = sender

        assert found() == ([] if is_good else ["config.E025"])

    def test_every_fault_says_what_to_do(self, settings: Settings) -> None:
        settings.MAILER = parse_mailer("smtp://smtp.example.com")
        settings.PUBLIC_URL, settings.DEFAULT_FROM_EMAIL = "http://api.example.com", ""

        messages = [message for check in email_checks.CHECKS for message in check()]
        assert len(messages) == 3
        assert all(message.hint for message in messages)


def test_debug_relaxes_this_and_nothing_else(settings: Settings) -> None:
    settings.DEBUG = True
    settings.ALLOWED_HOSTS = []
    settings.CORS_ALLOW_ALL_ORIGINS = True
    settings.CACHE_URL = ""
    settings.BCRYPT_ROUNDS = 4
    settings.MAILER = parse_mailer("smtp://smtp.example.com")
    settings.PUBLIC_URL = "http://api.example.com"
    assert found() == []

    settings.SECRETS["SECRET"] = ["weak"]
    settings.SECRETS["ACCESS_TOKEN_SECRET"] = [""]
    settings.SECRETS["REFRESH_TOKEN_SECRET"] = [GOOD["REFRESH_TOKEN_SECRET"][0]] * 2
    assert found() == ["config.E002", "config.E003", "config.E004"]


class TestConnections:
    @pytest.fixture(autouse=True)
    def threads(self, settings: Settings, db: None) -> None:
        settings.WEB_THREADS = 48

    def test_more_threads_than_the_database_has_connections_for(self) -> None:
        (message,) = checks.check_connections(databases=["default"])

        assert message.id == "config.E011"
        assert "= 2 * 49 = 98 connections" in message.msg
        assert "= 100 - 3 = 97," in message.msg

    def test_as_many_connections_as_available_pass(self, settings: Settings) -> None:
        settings.WEB_CONCURRENCY = 1

        assert checks.check_connections(databases=["default"]) == []

    def test_an_unavailable_database_is_not_a_configuration_fault(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(connection.settings_dict, "PORT", "1")

        assert checks.check_connections(databases=["default"]) == []

    def test_it_is_not_asked_unless_the_database_may_be(self) -> None:
        assert "config.E011" not in {message.id for message in run_checks()}


@pytest.mark.parametrize("host", ["", "127.0.0.1", "0.0.0.0", "localhost"])
def test_a_server_listens_on_an_address_of_this_machine(settings: Settings, host: str) -> None:
    settings.HOST = host

    assert checks.check_address(databases=["default"]) == []


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "nowhere.invalid"])
def test_a_server_does_not_listen_elsewhere(settings: Settings, host: str) -> None:
    settings.HOST = host

    assert [message.id for message in checks.check_address(databases=["default"])] == [
        "config.E013"
    ]
    assert checks.check_address() == []


class TestPasskeys:
    @pytest.mark.parametrize(
        ("rp_id", "origin", "expected"),
        [
            ("example.com", "https://example.com", []),
            ("example.com", "https://app.example.com:8443", []),
            ("example.com", f"android:apk-key-hash:{'a' * 43}", []),
            ("example.com", "https://example.org", ["config.E041"]),
            ("example.com", "https://badexample.com", ["config.E041"]),
            ("app.example.com", "https://example.com", ["config.E041"]),
            ("example.com", "http://app.example.com", ["config.E042"]),
            ("localhost", "http://localhost:3000", ["config.E042"]),
            ("example.com", "http://example.org", ["config.E041", "config.E042"]),
        ],
    )
    def test_their_origins_are_secure_and_below_the_domain(
        self, settings: Settings, rp_id: str, origin: str, expected: list[str]
    ) -> None:
        settings.WEBAUTHN_RP_ID = rp_id
        settings.WEBAUTHN_ORIGINS = ["https://" + rp_id, origin]

        assert found() == expected

    def test_in_development_localhost_needs_no_tls(self, settings: Settings) -> None:
        settings.DEBUG = True
        settings.WEBAUTHN_RP_ID, settings.WEBAUTHN_ORIGINS = "localhost", ["http://localhost:3000"]
        assert found() == []

        settings.WEBAUTHN_RP_ID, settings.WEBAUTHN_ORIGINS = "a.example", ["http://a.example"]
        assert found() == ["config.E042"]

    @pytest.mark.parametrize(
        ("rp_id", "origins", "expected"),
        [
            ("", [], []),
            ("example.com", [], ["config.E040"]),
            ("", ["https://example.com"], ["config.E040"]),
        ],
    )
    def test_there_are_none_without_a_domain_and_an_origin(
        self, settings: Settings, rp_id: str, origins: list[str], expected: list[str]
    ) -> None:
        settings.WEBAUTHN_RP_ID, settings.WEBAUTHN_ORIGINS = rp_id, origins

        assert found() == expected

    def test_a_variable_that_could_not_be_read_is_reported_once(self, settings: Settings) -> None:
        settings.WEBAUTHN_RP_ID = ""
        settings.FAULTY_VARIABLES = {"WEBAUTHN_RP_ID"}

        assert found() == []


def test_operators_find_every_fault_in_the_manual() -> None:
    """docs/operations.md has the text and the hint of each rule, and no others."""
    manual = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| `(config\.E\d+)` \| (.*) \| (.*) \|$", manual, re.MULTILINE)

    assert {rule: (text, hint) for rule, text, hint in rows} == rules.RULES
    assert len(rows) == len(rules.RULES)


def test_every_rule_has_a_check() -> None:
    modules = (checks, api_checks, email_checks, passkey_checks, storage_checks)
    source = "".join(Path(module.__file__).read_text() for module in modules)

    assert set(re.findall(r'error\(\s*"(config\.E\d+)"', source)) == rules.RULES.keys()
    assert not re.findall(r"\bError\(", source)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_ROOT", ""),
        ("API_ROOT", "/api/"),
        ("API_ROOT", "api"),
        ("API_PATH", "v1/"),
        ("API_PATH", "api/v1"),
        ("ADMIN_PATH", "api/admin/"),
    ],
)
def test_paths_that_overlap_are_rejected(settings: Settings, name: str, value: str) -> None:
    setattr(settings, name, value)

    assert found() == ["config.E030"]


def test_another_path_of_the_api_is_accepted(settings: Settings) -> None:
    settings.API_ROOT, settings.API_PATH = "rest/", "rest/v2.1/"

    assert found() == []


def test_atomic_requests_are_rejected(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.DATABASES["default"], "ATOMIC_REQUESTS", True)

    assert found() == ["config.E031"]


class OwnAuthentication(SessionAuthentication):
    pass


class CookieView(APIView):
    authentication_classes = [OwnAuthentication]


class ScopedView(APIView):
    throttle_scope = "uploads"


urlpatterns = [
    path("api/v1/cookie", CookieView.as_view()),
    path("api/v1/cookie/again", CookieView.as_view()),
    path("api/v1/bearer", CookieView.as_view(authentication_classes=[])),
    path("api/v1/scoped", ScopedView.as_view()),
    path("api/v1/unlimited", ScopedView.as_view(throttle_classes=[])),
    path("pages/", include([path("cookie", CookieView.as_view())])),
]


@pytest.mark.urls(__name__)
def test_views_that_would_fail_with_every_request_are_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert sorted(found()) == ["config.E032", "config.E033"]

    monkeypatch.setattr(ScopedRateThrottle, "THROTTLE_RATES", {"uploads": "20/day"})

    assert found() == ["config.E032"]


def test_a_library_that_was_not_tested_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    for library, (_, module) in checks.TESTED_RELEASES.items():
        monkeypatch.setitem(checks.TESTED_RELEASES, library, ("0.", module))

    assert found() == ["config.E019"] * 2


class TestStorage:
    def test_files_need_a_place(self, settings: Settings) -> None:
        settings.MEDIA_ROOT = ""

        (message,) = storage_checks.check_storage()

        assert (message.id, message.msg.split()[0]) == ("config.E034", "guest.Photo.file")
        settings.FAULTY_VARIABLES = {"MEDIA_ROOT"}
        assert found() == []

    def test_a_project_without_files_needs_none(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.MEDIA_ROOT = ""
        monkeypatch.setattr(Photo._meta.get_field("file"), "storage", InMemoryStorage())

        assert found() == []

    def test_a_bucket_needs_its_packages(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.MEDIA_BUCKET = "media.example.com"
        with monkeypatch.context() as patch:
            patch.setattr(importlib.util, "find_spec", lambda name: None)
            assert found() == ["config.E035"]
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
        assert found() == []

    def test_a_server_can_write_the_directory(self, settings: Settings, tmp_path: Path) -> None:
        def faults() -> list[str | None]:
            return [message.id for message in storage_checks.check_directory(["default"])]

        settings.MEDIA_ROOT = str(tmp_path / "missing")

        assert faults() == ["config.E036"]
        assert storage_checks.check_directory() == []
        (tmp_path / "missing").mkdir()
        assert faults() == []
