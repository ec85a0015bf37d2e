"""The strict parser of environment variables, and its faults without values."""

import os
import runpy
import secrets
from pathlib import Path
from typing import Any

import pytest

from config.environment import Environment
from config.tests.test_startup import GOOD, ROOT, VARIABLES
from ops import files


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEBUG", "2"),
        ("DEBUG", "$HOME"),
        ("ADMIN_ENABLED", "perhaps"),
        ("PORT", "65536"),
        ("PORT", "3000 "[:-1] + "x"),
        ("PORT", "-1"),
        ("PORT", "3.5"),
        ("PORT", "٣٠٠٠"),
        ("WEB_CONCURRENCY", "0"),
        ("WEB_THREADS", "none"),
        ("HASHING_PLACES", "0"),
        ("BCRYPT_ROUNDS", "32"),
        ("ACCESS_TOKEN_MINUTES", "0"),
        ("REFRESH_TOKEN_DAYS", "1e3"),
        ("SESSION_MAX_AGE_DAYS", "-7"),
        ("REFRESH_GRACE_SECONDS", "1.5"),
        ("SESSION_RETENTION_DAYS", "x"),
        ("TRUSTED_PROXY_COUNT", "one"),
        ("AUTH_RATE_LIMIT", "5"),
        ("AUTH_RATE_LIMIT", "5/m or so"),
        ("AUTH_RATE_LIMIT", "0/m"),
        ("LOGIN_FAILURE_LIMIT", "10/15"),
        ("LOGIN_FAILURE_LIMIT", "ten/15m"),
        ("CACHE_URL", "localhost:6379"),
        ("CACHE_URL", "memcached://localhost"),
        ("CACHE_URL", "redis://127.0.0.1:abc/0"),
        ("CACHE_URL", "redis://127.0.0.1:99999/0"),
        ("CACHE_URL", "redis://:p#ss@host/0"),
        ("CACHE_URL", "redis://:p?ss@host/0"),
        ("CACHE_URL", "redis://:p/ss@host/0"),
        ("CACHE_URL", "redis://:p,ss@host/0"),
        ("CACHE_URL", "redis://:p;ss@host/0"),
        ("CACHE_URL", "redis://host/0?nonsense=1"),
        ("CACHE_URL", "redis://host/0?retry=1"),
        ("CACHE_URL", "redis://host/0?socket_timeout=long"),
        ("CACHE_URL", "redis://host/0?db=abc"),
        ("CACHE_URL", "redis://host/abc"),
        ("CACHE_URL", "redis://host/-1"),
        ("CACHE_URL", "redis://host/0/1"),
        ("CACHE_URL", "redis://:6379/0"),
        ("CACHE_URL", "redis://[::1/0"),
        ("CACHE_URL", "redis://host/0?protocol=9"),
        ("CACHE_URL", "rediss://host/0?ssl_cert_reqs=banana"),
        ("CACHE_URL", "rediss://host/0?ssl_ca_certs=/nowhere.pem"),
        ("DATABASE_URL", "sqlite:///db.sqlite3"),
        ("DATABASE_URL", "postgres://"),
        ("DATABASE_URL", "postgres://user@host:port/name"),
        ("DATABASE_URL", "postgres://user@host:5432/"),
        ("DATABASE_URL", "$DATABASE"),
        ("DATABASE_URL", "postgres://user:word@host:5432"),
        ("DATABASE_URL", "postgres://user:word@[::1/name"),
        ("DATABASE_URL", "postgres://user:word@host/name?sslmode=banana"),
        ("DATABASE_URL", "postgres://user:word@host/name?target_session_attrs=banana"),
        ("DATABASE_URL", "postgres://user:word@host/name?connect_timeout=soon"),
        ("DATABASE_URL", "postgres://user:word@host/name?nonsense=1"),
        ("DATABASE_URL", "postgres://user:word@host/name?ATOMIC_REQUESTS=true"),
        ("DATABASE_URL", "postgres://user:word@host/name?pool=true"),
        ("DATABASE_URL", "postgres://user:word@host/name?host=other"),
        ("DATABASE_URL", "postgres://user:word@host:70000/name"),
        ("DATABASE_URL", "postgres://user:word@a:1,b:2,c:3/name?port=5,6"),
        ("DATABASE_URL", "postgres://user:p?ss@host/name"),
        ("DATABASE_URL", "postgres://user:p/ss@host/name"),
        ("DATABASE_URL", "postgres://user:p@ss@host/name"),
        ("DATABASE_URL", f"postgres://user:word@host/{'n' * 64}"),
        ("ADMIN_PATH", "mail"),
        ("ADMIN_PATH", "example"),
        ("API_TOKEN_PREFIX", "l_k"),
        ("API_TOKEN_PREFIX", "lk-"),
        ("API_TOKEN_PREFIX", "ключ"),
        ("API_TOKEN_PREFIX", "٣"),
        ("API_TOKEN_PREFIX", "x" * 17),
        ("ADMIN_PATH", "account/admin"),
        ("EMAIL_URL", "smtp.example.com"),
        ("EMAIL_URL", "smtps://smtp.example.com"),
        ("EMAIL_URL", "smtp+tls://"),
        ("EMAIL_URL", "smtp+tls://user:word@smtp.example.com:port"),
        ("EMAIL_URL", "smtp+tls://user:wo/rd@smtp.example.com:587"),
        ("EMAIL_URL", "smtp+tls://user:wo#rd@smtp.example.com:587"),
        ("EMAIL_URL", "smtp+tls://smtp.example.com/path"),
        ("EMAIL_URL", "smtp+tls://smtp.example.com?timeout=5"),
        ("EMAIL_URL", "filemail://relative"),
        ("EMAIL_URL", "filemail://"),
        ("EMAIL_URL", "consolemail://x"),
        ("EMAIL_URL", "None"),
        ("EMAIL_LIMIT", "3"),
        ("PUBLIC_URL", "api.example.com"),
        ("PUBLIC_URL", "https://api.example.com?x=1"),
        ("PUBLIC_URL", "https://api.example.com#x"),
        ("PUBLIC_URL", "https://user:word@api.example.com"),
        ("PUBLIC_URL", "https://api.example.com:port"),
        ("FRONTEND_URL", "javascript:alert(1)"),
        ("FRONTEND_URL", "https://"),
        ("WEBAUTHN_RP_ID", "https://example.com"),
        ("WEBAUTHN_RP_ID", "example.com:8443"),
        ("WEBAUTHN_RP_ID", "Example.com"),
        ("WEBAUTHN_RP_ID", "192.0.2.7"),
        ("WEBAUTHN_RP_ID", "[::1]"),
        ("WEBAUTHN_ORIGINS", "www.example.org"),
        ("WEBAUTHN_ORIGINS", "https://app.example.com/"),
        ("WEBAUTHN_ORIGINS", "https://app.example.com:443"),
        ("WEBAUTHN_ORIGINS", "https://App.example.com"),
        ("WEBAUTHN_ORIGINS", "ftp://app.example.com"),
        ("WEBAUTHN_ORIGINS", "android:apk-key-hash:short"),
        ("WEBAUTHN_ORIGINS", "ios:bundle-id:com.example"),
        ("MEDIA_ROOT", "media"),
        ("MEDIA_ROOT", "/"),
        ("MEDIA_ROOT", str(ROOT / "staticfiles")),
        ("MEDIA_ROOT", f"/srv/..{ROOT}"),
        ("MEDIA_BUCKET", "s3://media"),
        ("MEDIA_BUCKET", "Media"),
        ("REGISTRATION", "closed"),
        ("STAFF_MFA", "true"),
        ("RESET_MINUTES", "4"),
        ("RESET_MINUTES", "121"),
        ("FRESH_MINUTES", "0"),
        ("UNDO_DAYS", "-1"),
        ("EMAIL_RETENTION_DAYS", "0"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "INFO\nDEBUG"),
        ("SECRET", "two\nlines"),
        ("SECRET_FALLBACKS", os.fsdecode(b"caf\xe9" * 10)),
        ("HOST", "0.0.0.0:3000"),
        ("HOST", "http://localhost"),
        ("HOST", "two hosts"),
        ("HOST", "[::1]"),
        ("ALLOWED_HOSTS", "https://api.example"),
        ("ALLOWED_HOSTS", "api.example:8443"),
        ("ALLOWED_HOSTS", "api.example/"),
        ("ALLOWED_HOSTS", "api.example/path"),
        ("ALLOWED_HOSTS", "a.example b.example"),
        ("ALLOWED_HOSTS", "a.example;b.example"),
        ("ALLOWED_HOSTS", "good.example,api..example"),
        ("ALLOWED_HOSTS", "api.example."),
        ("ALLOWED_HOSTS", ".."),
        ("ALLOWED_HOSTS", "."),
        ("ALLOWED_HOSTS", "*.example"),
        ("ALLOWED_HOSTS", "my_host"),
        ("ALLOWED_HOSTS", "bücher.example"),
        ("ALLOWED_HOSTS", "::1"),
        ("ALLOWED_HOSTS", '["api.example"]'),
        ("CORS_ALLOWED_ORIGINS", "app.example"),
        ("CORS_ALLOWED_ORIGINS", "https://app.example/"),
        ("CORS_ALLOWED_ORIGINS", "https://app.example/path"),
        ("CORS_ALLOWED_ORIGINS", "https://app.example?a=1"),
        ("CORS_ALLOWED_ORIGINS", "https://app.example:443"),
        ("CORS_ALLOWED_ORIGINS", "http://app.example:80"),
        ("CORS_ALLOWED_ORIGINS", "https://app.example:99999"),
        ("CORS_ALLOWED_ORIGINS", "https://app.example:port"),
        ("CORS_ALLOWED_ORIGINS", "https://App.example"),
        ("CORS_ALLOWED_ORIGINS", "https://user@app.example"),
        ("CORS_ALLOWED_ORIGINS", "https://a.example https://b.example"),
        ("CORS_ALLOWED_ORIGINS", "https://*.app.example"),
        ("CORS_ALLOWED_ORIGINS", "https://"),
        ("CORS_ALLOWED_ORIGINS", "null"),
        ("CSRF_TRUSTED_ORIGINS", "*"),
        ("CSRF_TRUSTED_ORIGINS", "app.example"),
        ("CSRF_TRUSTED_ORIGINS", "https://app.example/"),
        ("CSRF_TRUSTED_ORIGINS", "https://*"),
        ("CSRF_TRUSTED_ORIGINS", "https://a.*.example"),
        ("SENTRY_DSN", "nonsense"),
        ("SENTRY_DSN", "https://sentry.example/1"),
        ("SENTRY_DSN", "https://key@sentry.example/project"),
        ("SENTRY_DSN", "https://key@sentry.example:port/1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:port"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318?a=1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://my collector"),
        ("PGSSLMODE", "banana"),
        ("PGSSLMODE", ""),
        ("PGTARGETSESSIONATTRS", "read-writes"),
        ("PGCONNECT_TIMEOUT", "soon"),
        ("PGSSLNEGOTIATION", "direct"),
        ("ADMIN_PATH", "a b"),
        ("ADMIN_PATH", "/"),
        ("ADMIN_PATH", "health/admin"),
    ],
)
def test_a_variable_that_cannot_be_read_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fault,) = read(monkeypatch, **{name: value})

    assert fault.split()[0] == name
    assert len(value) < 12 or value not in fault


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CACHE_URL", "redis://:p%23ss@host:6379/3"),
        ("CACHE_URL", "redis://user:word@[::1]:6379"),
        ("CACHE_URL", f"rediss://host/0?ssl_ca_certs={__file__}&ssl_cert_reqs=none"),
        ("CACHE_URL", "redis://host?db=3&socket_timeout=0.1"),
        ("DATABASE_URL", "postgres://user:p#ss@host/name"),
        ("DATABASE_URL", "postgres://user:p%3Fss@host/name?sslmode=require"),
        ("DATABASE_URL", "postgres://user:word@One:1,two:2/name?target_session_attrs=read-write"),
        ("DATABASE_URL", "postgres://user:word@/name?host=/var/run/postgresql"),
        ("DATABASE_URL", "postgres://user:word@Host/name?hostaddr=192.0.2.1"),
        ("LOG_LEVEL", "ERROR"),
        ("ADMIN_PATH", "/staff/console"),
        ("API_TOKEN_PREFIX", "Shop2"),
        ("HOST", "::"),
        ("HOST", "localhost"),
        ("ALLOWED_HOSTS", "Api.example, .wild.example,[::1],192.0.2.1,xn--bcher-kva.example"),
        ("CORS_ALLOWED_ORIGINS", "https://a.example,http://localhost:5173,capacitor://localhost"),
        ("CORS_ALLOWED_ORIGINS", "http://[::1]:8000"),
        ("CSRF_TRUSTED_ORIGINS", "https://*.example.com,https://api.example.com:8443"),
        ("SENTRY_DSN", "https://key@sentry.example/1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector/path"),
        ("PGSSLMODE", "verify-full"),
        ("PGTARGETSESSIONATTRS", "read-write"),
    ],
)
def test_what_its_library_accepts_is_no_fault(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read(monkeypatch, **{name: value}) == []


def test_variables_of_libpq_are_judged_together(monkeypatch: pytest.MonkeyPatch) -> None:
    together = {"PGSSLNEGOTIATION": "direct", "PGSSLMODE": "require"}
    assert read(monkeypatch, **together) == []

    url = "postgres://user:word@host/name?sslmode=prefer"
    (fault,) = read(monkeypatch, **together, DATABASE_URL=url)
    assert fault.split()[0] == "DATABASE_URL"
    assert os.environ["PGSSLMODE"] == "require"


class TestDotenv:
    """Each invalid line is reported; its variable is not also reported as missing."""

    SECRET = "q8Zr1vXk3mTn7bYw2cJh5sLd9fGp4aEu0"

    @pytest.fixture
    def start(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        forget(monkeypatch)

        def read_secret(content: bytes) -> Environment:
            (tmp_path / ".env").write_bytes(content)
            env = Environment(tmp_path / ".env")
            env.text("SECRET")
            env.integer("TRUSTED_PROXY_COUNT", 0, low=0, high=16)
            return env

        return read_secret

    @pytest.mark.parametrize(
        "line",
        [
            "SECRET = {}", " SECRET={}", "\tSECRET={}", "SECRET= {}", "SECRET ={}", "SECRET: {}",
            '"SECRET"={}', "'SECRET'={}", 'SECRET="{}', "SECRET={}'", 'SECRET="{}" # mine',
            "SECRET={} # mine", "SECRET={}\u200b", "SECRET={}\x0c", "SECRET {}",
            "SECRET\t{}", "export  SECRET={}", "set SECRET={}", "secret={}", "SECRET='{}\"'",
            "SECRET={}\rDEBUG=true", "SECRET=#{}",
        ],
    )  # fmt: skip
    def test_an_invalid_line_is_named(
        self, line: str, start: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        env = start(f"# mine\n{line.format(self.SECRET)}\n".encode())

        (fault,) = env.faults
        assert fault.startswith("SECRET is on line 2 of .env, which must be ")
        assert self.SECRET not in fault + caplog.text
        assert env.faulty == {"SECRET"}
        assert env.text("SECRET") == ""

    def test_a_line_without_a_known_name_has_a_number_only(self, start: Any) -> None:
        env = start(b"SECRET=" + self.SECRET.encode() + b"\nQ8ZR1VXK3MTN7BYW2CJH5S=\n?\nok = 1\n")

        assert [fault[: fault.index(" must")] for fault in env.faults] == [
            "Line 3 of .env",
            "Line 4 of .env",
        ]
        assert env.faulty == set()

    @pytest.mark.parametrize(
        "line", ["SECRET={}", "export SECRET={}", "SECRET='{}'", 'SECRET="{}"', "SECRET={} \t"]
    )
    @pytest.mark.parametrize("start_of_file", [b"", b"\xef\xbb\xbf", "# caf\u00e9\n \n".encode()])
    @pytest.mark.parametrize("end", ["\n", "\r\n", ""])
    def test_a_valid_line_is_read(
        self, line: str, start_of_file: bytes, end: str, start: Any
    ) -> None:
        env = start(start_of_file + f"{line.format(self.SECRET)}{end}".encode())

        assert env.faults == []
        assert env.text("SECRET") == self.SECRET

    def test_values_are_taken_literally(self, start: Any) -> None:
        env = start(b"A=p#x$HOME\nB=\"p\\\"w'\"\nC=two words\nD=\nE=''\nF=a=b\n")

        assert env.faults == []
        assert env.dotenv.values == {
            "A": "p#x$HOME", "B": "p\"w'", "C": "two words", "D": "", "E": "", "F": "a=b",
        }  # fmt: skip

    def test_a_variable_is_set_once(self, start: Any) -> None:
        env = start(b"TRUSTED_PROXY_COUNT=1\nDEBUG=true\nTRUSTED_PROXY_COUNT=2\n")

        (fault,) = env.faults
        assert fault.startswith("TRUSTED_PROXY_COUNT is on line 3 of .env, which sets a variable")

    def test_latin_1_is_named_by_its_line(self, start: Any) -> None:
        env = start("PORT=3000\nSECRET=caf\u00e9\n".encode("latin-1"))

        (fault,) = env.faults
        assert (
            fault
            == "SECRET is on line 2 of .env, which must be UTF-8 text without control characters."
        )

    @pytest.mark.parametrize(
        "content",
        [f"SECRET={SECRET}".encode("utf-16"), b"\0", b"A=1\n" * (files.MAX_BYTES // 4 + 1)],
    )
    def test_a_file_that_is_no_text_is_one_fault(self, content: bytes, start: Any) -> None:
        env = start(content)

        (fault,) = env.faults
        assert fault.startswith(".env must be a file of UTF-8 text")
        assert env.faulty >= {"SECRET", "TRUSTED_PROXY_COUNT"}

    def test_a_directory_and_a_broken_link_are_faults(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")

        for path in (tmp_path, tmp_path / "link"):
            (fault,) = Environment(path).faults
            assert fault.startswith(".env must be a file of UTF-8 text")

    def test_no_file_is_no_fault(self, tmp_path: Path) -> None:
        assert Environment(tmp_path / ".env").faults == []

    def test_a_variable_of_libpq_is_not_for_this_file(self, start: Any) -> None:
        env = start(b"PGSSLMODE=verify-full\nPGADMIN_PORT=5050\nDATABASE_URL=embedded://\n")

        env.database()

        assert env.faults == ["PGSSLMODE must be in the process environment: libpq reads no .env."]

    def test_nothing_that_a_line_would_set_is_required_as_well(self, start: Any) -> None:
        env = start(b"DATABASE_URL = postgres://u:p@h/n\n")
        assert env.database() == {}
        (fault,) = env.faults
        assert fault.startswith("DATABASE_URL is on line 1")

        env = start(b"DB_HOST = h\nDB_PORT=1\nDB_PASSWORD=p\nDB_NAME=n\n")
        assert env.database() == {}
        assert [fault.split()[0] for fault in env.faults] == ["DB_HOST", "DB_USER"]


class TestDatabase:
    FIVE = {
        "DB_HOST": "db", "DB_PORT": "5433", "DB_USER": "u", "DB_PASSWORD": "p$1", "DB_NAME": "n",
    }  # fmt: skip

    def test_the_five_are_one_form(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = load(monkeypatch, **{**self.FIVE, "DATABASE_URL": ""})

        assert settings["ENVIRONMENT_FAULTS"] == []
        assert settings["DATABASES"]["default"] == {
            "ENGINE": "ops.database.postgres",
            "HOST": "db", "PORT": 5433, "USER": "u", "PASSWORD": "p$1", "NAME": "n",
        }  # fmt: skip

    def test_both_forms_in_one_source_are_a_fault(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert len(read(monkeypatch, DATABASE_URL="postgres://u@h/n", DB_HOST="db")) == 1

    def test_the_process_environment_precedes_the_file(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        dotenv = tmp_path / ".env"
        forget(monkeypatch)
        dotenv.write_text("DATABASE_URL=embedded://\nPORT=4000\nLOG_LEVEL=ERROR\n")
        for name, value in self.FIVE.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("LOG_LEVEL", "DEBUG")
        env = Environment(dotenv)
        assert env.database()["HOST"] == "db"
        assert env.text("PORT") == "4000"
        assert env.text("LOG_LEVEL") == "DEBUG"

        dotenv.write_text("".join(f"{name}={value}\n" for name, value in self.FIVE.items()))
        forget(monkeypatch)
        assert Environment(dotenv).database()["HOST"] == "db"
        monkeypatch.setenv("DATABASE_URL", "postgres://u@elsewhere/n")
        assert Environment(dotenv).database()["HOST"] == "elsewhere"

        forget(monkeypatch)
        dotenv.write_text(dotenv.read_text() + "DATABASE_URL=embedded://\n")
        env = Environment(dotenv)
        env.database()
        assert len(env.faults) == 1

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("DB_HOST", "db:5432"),
            ("DB_HOST", "https://db"),
            ("DB_HOST", "one two"),
            ("DB_HOST", "one,,two"),
            ("DB_HOST", "one,two:5433"),
            ("DB_PORT", "5432,5433"),
            ("DB_PORT", "0"),
            ("DB_USER", "u" * 64),
            ("DB_NAME", "n" * 64),
            ("DB_PASSWORD", "two\nlines"),
        ],
    )
    def test_a_part_that_libpq_could_not_use_is_named(
        self, name: str, value: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (fault,) = read(monkeypatch, **{**self.FIVE, "DATABASE_URL": "", name: value})

        assert fault.split()[0] == name
        assert value not in fault

    def test_several_hosts_share_a_port(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hosts = {"DB_HOST": "one.example, 192.0.2.1,::1,/run/postgresql"}
        database = load(monkeypatch, **{**self.FIVE, **hosts, "DATABASE_URL": ""})["DATABASES"]

        assert database["default"]["HOST"] == "one.example,192.0.2.1,::1,/run/postgresql"

    @pytest.mark.parametrize("given", ["", "primary", "read-write"])
    def test_of_several_hosts_the_primary_is_used(
        self, given: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By default libpq would use the first host that responds, a standby too."""
        variables = {**self.FIVE, "DB_HOST": "one.example,two.example", "DATABASE_URL": ""}
        if given:
            variables["PGTARGETSESSIONATTRS"] = given

        database = load(monkeypatch, **variables)["DATABASES"]["default"]

        assert database["OPTIONS"] == {"target_session_attrs": given or "read-write"}

    @pytest.mark.parametrize(
        "variables",
        [
            {"DB_HOST": "one.example,two.example", "PGTARGETSESSIONATTRS": "any"},
            {
                **dict.fromkeys(FIVE, ""),
                "DATABASE_URL": "postgres://a:b@/c?host=/a,/b&target_session_attrs=prefer-standby",
            },
        ],
        ids=["variables", "url"],
    )
    def test_a_standby_of_several_hosts_is_rejected(
        self, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (fault,) = read(monkeypatch, **{**self.FIVE, "DATABASE_URL": "", **variables})

        assert fault.startswith("PGTARGETSESSIONATTRS (target_session_attrs in a URL) must be")

    def test_a_host_stands_in_the_list_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hosts = {"DB_HOST": "one.example,one.example", "DATABASE_URL": ""}

        (fault,) = read(monkeypatch, **{**self.FIVE, **hosts})

        assert fault.startswith("DB_HOST must be host names")

    def test_spaces_around_a_password_belong_to_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        five = {**self.FIVE, "DATABASE_URL": "", "DB_PASSWORD": " word "}

        assert load(monkeypatch, **five)["DATABASES"]["default"]["PASSWORD"] == " word "

    def test_a_url_may_name_the_directory_of_a_socket(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = "postgres://u:p@/n?host=/run/postgresql&port=5433&sslmode=disable"
        database: Any = load(monkeypatch, DATABASE_URL=url)["DATABASES"]

        assert (database["default"]["HOST"], database["default"]["PORT"]) == (
            "/run/postgresql",
            5433,
        )
        assert database["default"]["OPTIONS"] == {"sslmode": "disable"}

    def test_a_url_may_hold_what_urls_escape(self, monkeypatch: pytest.MonkeyPatch) -> None:
        url = "postgresql://us%40er:p%2Fw%23@[::1]:5433/my%20db?sslmode=require"
        database = load(monkeypatch, DATABASE_URL=url)["DATABASES"]["default"]

        assert database["USER"] == "us@er"
        assert database["PASSWORD"] == "p/w#"
        assert (database["HOST"], database["PORT"]) == ("::1", 5433)
        assert database["NAME"] == "my db"
        assert database["OPTIONS"] == {"sslmode": "require"}


class TestFiles:
    """`NAME_FILE` is the path of a file with the value of NAME, in either source."""

    @pytest.fixture(autouse=True)
    def nothing_is_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        forget(monkeypatch)

    def test_a_secret_may_come_from_a_file(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / ".env").write_text(
            f"SECRET=from .env\nDB_PASSWORD=from .env\nCACHE_URL_FILE={tmp_path / 'cache'}\n"
        )
        (tmp_path / "secret").write_bytes(b"\xef\xbb\xbffrom a file\r\n")
        (tmp_path / "url").write_text("postgres://u:p@db/n\n")
        (tmp_path / "cache").write_text("redis://cache\n")
        monkeypatch.setenv("SECRET_FILE", str(tmp_path / "secret"))
        monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "url"))

        env = Environment(tmp_path / ".env")

        assert env.text("SECRET") == "from a file"
        assert env.database()["HOST"] == "db"
        assert env.text("CACHE_URL") == "redis://cache"
        assert env.faults == []
        assert "SECRET" not in os.environ

    @pytest.mark.parametrize("content", [None, b"", b" \n", b"\0", b"x" * (files.MAX_BYTES + 1)])
    def test_a_file_without_a_value_is_a_fault(
        self, content: bytes | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        if content is not None:
            (tmp_path / "secret").write_bytes(content)
        monkeypatch.setenv("SECRET_FILE", str(tmp_path / "secret"))
        monkeypatch.setenv("CACHE_URL_FILE", str(tmp_path))

        env = Environment(tmp_path / ".env")

        assert [fault.split()[0] for fault in env.faults] == ["SECRET_FILE", "CACHE_URL_FILE"]
        assert env.faulty == {"SECRET", "CACHE_URL"}

    @pytest.mark.parametrize(
        "content", [b"two\nlines\n", "caf\u00e9".encode("latin-1"), b"\xff\xfe"]
    )
    def test_a_secret_is_one_line_of_text(
        self, content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "secret").write_bytes(content)
        monkeypatch.setenv("SECRET_FILE", str(tmp_path / "secret"))

        env = Environment(tmp_path / ".env")

        assert env.text("SECRET") == ""
        assert env.faults == ["SECRET must be one line of UTF-8 text without control characters."]

    def test_a_variable_and_its_file_are_not_both_set(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("SECRET", "word")
        monkeypatch.setenv("SECRET_FILE", __file__)

        assert Environment(tmp_path / ".env").faults == [
            "SECRET and SECRET_FILE are both set: use one."
        ]

    @pytest.mark.parametrize(
        "content", ["one\ntwo\n", "one,two", "one,\r\ntwo\r\n", "\ufeffone\n\n two"]
    )
    def test_earlier_secrets_stand_on_lines_or_between_commas(
        self, content: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "earlier").write_text(content, newline="")
        monkeypatch.setenv("SECRET_FALLBACKS_FILE", str(tmp_path / "earlier"))

        assert Environment(tmp_path / ".env").names("SECRET_FALLBACKS") == ["one", "two"]


def test_deployments_on_one_redis_do_not_share_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def prefix(**variables: str) -> str:
        caches: Any = load(monkeypatch, **variables)["CACHES"]
        return str(caches["default"]["KEY_PREFIX"])

    first = prefix()
    assert prefix(DATABASE_URL="postgres://latchkey:word@127.0.0.1:1/other") != first
    assert prefix(DATABASE_URL="postgres://latchkey:word@127.0.0.2:1/latchkey") != first
    assert prefix(SECRET=secrets.token_urlsafe(32)) == first
    assert prefix(DATABASE_URL="postgres://latchkey:other@127.0.0.1:1/latchkey") == first


def test_debug_loosens_cookies_hsts_and_second_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    strict, loose = load(monkeypatch), load(monkeypatch, DEBUG="true")

    assert strict["SESSION_COOKIE_SECURE"]
    assert strict["CSRF_COOKIE_SECURE"]
    assert strict["SECURE_HSTS_SECONDS"] > 0
    assert strict["LOG_FORMAT"] == "json"
    assert not loose["SESSION_COOKIE_SECURE"]
    assert not loose["SECURE_HSTS_SECONDS"]
    assert loose["LOG_FORMAT"] == "console"
    assert (strict["STAFF_MFA"], loose["STAFF_MFA"]) == ("required", "optional")


def test_a_proxy_is_trusted_only_if_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    without, behind = load(monkeypatch), load(monkeypatch, TRUSTED_PROXY_COUNT="1")

    assert without["SECURE_PROXY_SSL_HEADER"] is None
    assert behind["SECURE_PROXY_SSL_HEADER"] == ("HTTP_X_FORWARDED_PROTO", "https")


class TestEmail:
    def test_a_url_may_hold_what_urls_escape(self, monkeypatch: pytest.MonkeyPatch) -> None:
        url = "smtp+tls://us%40er:p%2Fw%23+@smtp.example.com"
        options = load(monkeypatch, EMAIL_URL=url)["MAILER"]["OPTIONS"]

        assert (options["username"], options["password"]) == ("us@er", "p/w#+")
        assert (options["host"], options["port"]) == ("smtp.example.com", 587)
        assert (options["use_tls"], options["use_ssl"]) == (True, False)

    @pytest.mark.parametrize(
        ("scheme", "port", "tls", "ssl"),
        [
            ("smtp", 25, False, False),
            ("smtp+tls", 587, True, False),
            ("smtp+ssl", 465, False, True),
        ],
    )
    def test_the_scheme_decides_port_and_tls(
        self, monkeypatch: pytest.MonkeyPatch, scheme: str, port: int, tls: bool, ssl: bool
    ) -> None:
        settings = load(monkeypatch, EMAIL_URL=f"{scheme}://user:word@smtp.example.com")

        assert settings["MAILER"]["BACKEND"] == "django.core.mail.backends.smtp.EmailBackend"
        options = settings["MAILER"]["OPTIONS"]
        given = [options[name] for name in ("host", "port", "use_tls", "use_ssl")]
        assert given == ["smtp.example.com", port, tls, ssl]

    def test_in_development_email_goes_to_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = load(monkeypatch, DEBUG="true", EMAIL_URL="", PORT="4000")

        assert settings["MAILBOX"] == str(ROOT / ".data/mail")
        assert settings["EMAIL_ENABLED"]
        assert settings["PUBLIC_URL"] == "http://localhost:4000"
        assert settings["DEFAULT_FROM_EMAIL"] == "Latchkey <latchkey@localhost>"

    def test_in_production_nothing_is_assumed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = load(monkeypatch, EMAIL_URL="")

        assert settings["MAILER"] == {}
        assert not settings["EMAIL_ENABLED"]
        assert settings["PUBLIC_URL"] == settings["DEFAULT_FROM_EMAIL"] == ""

    def test_a_directory_may_have_any_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = load(monkeypatch, DEBUG="true", EMAIL_URL="filemail:///srv/my%20mail+box")

        assert settings["MAILBOX"] == "/srv/my mail+box"
        assert load(monkeypatch, EMAIL_URL="filemail:///tmp/mail")["MAILBOX"] is None

    def test_a_fault_does_not_show_the_password(self, monkeypatch: pytest.MonkeyPatch) -> None:
        [fault] = read(monkeypatch, EMAIL_URL="smtp+tls://user:my-word@smtp.example.com:port")

        assert fault.startswith("EMAIL_URL must be smtp+tls://user:password@host:port")
        assert "my-word" not in fault

    def test_the_slash_at_the_end_of_a_base_is_dropped(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = load(
            monkeypatch, PUBLIC_URL="https://[::1]:3000/", FRONTEND_URL="https://a.example/de/"
        )

        assert settings["PUBLIC_URL"] == "https://[::1]:3000"
        assert settings["FRONTEND_URL"] == "https://a.example/de"


class TestPasskeys:
    @pytest.mark.parametrize(
        ("public", "frontend", "rp_id", "origins"),
        [
            ("https://api.example.com", "", "api.example.com", ["https://api.example.com"]),
            ("https://api.example.com", "https://App.example.com/de", "app.example.com",
             ["https://app.example.com"]),
            ("https://api.example.com:443/x", "", "api.example.com", ["https://api.example.com"]),
            ("https://api.example.com:8443", "", "api.example.com",
             ["https://api.example.com:8443"]),
            ("", "", "", []),
            # Browsers accept no IP address.
            ("https://192.0.2.7", "", "", []),
            ("https://[::1]:3000", "", "", []),
        ],
    )  # fmt: skip
    def test_they_belong_to_the_host_of_links(
        self,
        monkeypatch: pytest.MonkeyPatch,
        public: str,
        frontend: str,
        rp_id: str,
        origins: list[str],
    ) -> None:
        settings = load(monkeypatch, PUBLIC_URL=public, FRONTEND_URL=frontend)

        assert settings["WEBAUTHN_RP_ID"] == rp_id
        assert settings["WEBAUTHN_ORIGINS"] == origins

    def test_in_development_they_belong_to_localhost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = load(monkeypatch, DEBUG="true", PORT="4000")

        assert settings["WEBAUTHN_RP_ID"] == "localhost"
        assert settings["WEBAUTHN_ORIGINS"] == ["http://localhost:4000"]

    def test_a_domain_has_several_origins_and_android_apps(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app = f"android:apk-key-hash:{'a' * 43}"
        settings = load(
            monkeypatch,
            WEBAUTHN_RP_ID="example.com",
            WEBAUTHN_ORIGINS=f"https://app.example.com, https://example.com:8443,{app}",
        )

        assert settings["ENVIRONMENT_FAULTS"] == []
        assert settings["WEBAUTHN_ORIGINS"] == [
            "https://app.example.com", "https://example.com:8443", app
        ]  # fmt: skip


def test_the_defaults_are_those_of_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = load(monkeypatch)
    minutes, days = 60, 24 * 3600
    seconds = {
        "ACCESS_TOKEN_LIFETIME": 15 * minutes, "REFRESH_TOKEN_LIFETIME": 7 * days,
        "SESSION_MAX_AGE": 30 * days, "REFRESH_GRACE": 10, "SESSION_RETENTION": 30 * days,
        "EVENT_RETENTION": 90 * days, "EMAIL_RETENTION": 14 * days, "RESET_LIFETIME": 30 * minutes,
        "FRESH_LIFETIME": 10 * minutes, "UNDO_LIFETIME": 7 * days,
    }  # fmt: skip
    others = {
        "AUTH_RATE_LIMIT": (5, 60), "AUTH_READ_LIMIT": (60, 60), "LOGIN_FAILURE_LIMIT": (10, 900),
        "EMAIL_LIMIT": (3, 3600), "TRUSTED_PROXY_COUNT": 0, "BCRYPT_ROUNDS": 14, "PORT": 3000,
        "WEB_THREADS": 8, "SESSION_LIMIT": 100, "ADMIN_PATH": "admin/", "ADMIN_ENABLED": True,
        "DEBUG": False, "LOG_LEVEL": "INFO", "LOG_FORMAT": "json", "REGISTRATION": "open",
        "TOKEN_AUDIENCE": "latchkey", "FRONTEND_URL": "",
    }  # fmt: skip

    assert {name: settings[name].total_seconds() for name in seconds} == seconds
    assert {name: settings[name] for name in others} == others


def test_lists_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        monkeypatch,
        ALLOWED_HOSTS="a.example.com, b.example.com,",
        SECRET_FALLBACKS="one,two",
        CORS_ALLOWED_ORIGINS="https://a.example.com,*",
    )

    assert settings["ALLOWED_HOSTS"] == ["a.example.com", "b.example.com"]
    assert settings["SECRET_KEY_FALLBACKS"] == ["one", "two"]
    assert settings["CORS_ALLOWED_ORIGINS"] == ["https://a.example.com"]
    assert settings["CORS_ALLOW_ALL_ORIGINS"]


def test_files_of_users_are_in_a_directory_or_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    development = load(monkeypatch, DEBUG="true")
    production = load(monkeypatch, MEDIA_ROOT="/srv/media")
    bucket = load(monkeypatch, MEDIA_BUCKET="media.example.com")

    assert development["MEDIA_ROOT"] == str(ROOT / ".data/media")
    assert (production["MEDIA_ROOT"], bucket["MEDIA_ROOT"]) == ("/srv/media", "")
    assert production["STORAGES"]["default"]["BACKEND"].endswith("FileSystemStorage")
    assert bucket["STORAGES"]["default"] == {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {"bucket_name": "media.example.com", "file_overwrite": False},
    }


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> dict[str, object]:
    """Run settings.py under these variables and return what it sets."""
    hide = dict.fromkeys((name for name, _ in VARIABLES), "")
    for name, value in (hide | GOOD | variables).items():
        monkeypatch.setenv(name, value)
    return runpy.run_path(str(ROOT / "config" / "settings.py"))


def read(monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[str]:
    found = load(monkeypatch, **variables)["ENVIRONMENT_FAULTS"]
    assert isinstance(found, list)
    return found


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, _ in VARIABLES:
        monkeypatch.delenv(name, raising=False)
