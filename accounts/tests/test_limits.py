"""Who is counted, where, and what a refusal says."""

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.contrib.auth.hashers import MD5PasswordHasher
from django.core.cache import cache
from django.core.cache.backends.locmem import LocMemCache
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import Session, User
from conftest import API, PASSWORD, SignIn

MEBIBYTE = 1024 * 1024
JSON = "application/json"


def login(client: APIClient, identity: str = "alice", password: Any = None, **extra: Any) -> Any:
    body = {"identity": identity, "password": password or "wrong"}
    return client.post(f"{API}/auth/login", body, **extra)


def assert_is_limited(response: Any, name: str, quota: int, window: int) -> None:
    assert response.status_code == 429
    assert response.json()["code"] == "rate_limited"
    assert response.headers["RateLimit-Policy"] == f'"{name}";q={quota};w={window}'
    match = re.fullmatch(rf'"{name}";r=0;t=(\d+)', response.headers["RateLimit"])
    assert match is not None
    assert 1 <= int(match[1]) <= window
    assert response.headers["Retry-After"] == match[1]


class TestAddress:
    def test_the_sixth_in_a_minute_is_rejected(self, client: APIClient, user: User) -> None:
        responses = [login(client) for _ in range(6)]

        assert [response.status_code for response in responses] == [401] * 5 + [429]
        remaining = [re.search(r";r=(\d)", r.headers["RateLimit"])[1] for r in responses]
        assert remaining == ["4", "3", "2", "1", "0", "0"]
        assert {r.headers["RateLimit-Policy"] for r in responses} == {'"auth";q=5;w=60'}
        assert_is_limited(responses[-1], "auth", 5, 60)

    def test_the_right_password_is_rejected_as_well(self, client: APIClient, user: User) -> None:
        for _ in range(5):
            login(client)

        assert login(client, password=PASSWORD).status_code == 429
        assert not Session.objects.exists()

    def test_waiting_for_retry_after_is_enough(
        self, client: APIClient, user: User, settings: Settings
    ) -> None:
        settings.AUTH_RATE_LIMIT = (1, 2)
        login(client)
        response = login(client)
        while response.status_code != 429:  # pragma: no cover - the first ended its window
            response = login(client)

        time.sleep(int(response.headers["Retry-After"]))

        assert login(client).status_code == 401

    def test_routes_are_counted_apart(self, client: APIClient, user: User) -> None:
        for _ in range(6):
            login(client)

        body = {"username": "bob", "email": "b@example.com", "password": PASSWORD}
        assert client.post(f"{API}/users", body).status_code == 201
        assert client.post(f"{API}/auth/refresh", {}).status_code == 400
        assert client.get(f"{API}/schema").status_code == 200

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("post", "/users"),
            ("post", "/auth/refresh"),
            ("delete", "/auth/sessions/00000000-0000-4000-8000-000000000000"),
            ("post", "/auth/password"),
            ("patch", "/users/{id}"),
            ("delete", "/users/1"),
        ],
    )
    def test_every_authentication_route_is_limited(
        self, user: User, sign_in: SignIn, method: str, path: str
    ) -> None:
        device = sign_in(user)
        url = f"{API}{path.format(id=user.pk)}"

        responses = [getattr(device, method)(url, {}) for _ in range(6)]

        assert all(response.status_code < 429 for response in responses[:5])
        assert all("RateLimit" in response.headers for response in responses)
        assert_is_limited(responses[5], "auth", 5, 60)

    @pytest.mark.parametrize("method", ["patch", "delete"])
    def test_all_ids_of_a_route_share_a_count(
        self, user: User, stranger: User, sign_in: SignIn, method: str
    ) -> None:
        device = sign_in(user)

        for number in range(1, 6):
            status = getattr(device, method)(f"{API}/users/{10**9 + number}", {}).status_code
            assert status == 404
        response = getattr(device, method)(f"{API}/users/{stranger.pk}", {})

        assert_is_limited(response, "auth", 5, 60)

    @pytest.mark.parametrize("path", ["/auth/sessions", "/auth/events"])
    def test_reading_is_counted_for_each_session(
        self, user: User, sign_in: SignIn, settings: Settings, path: str
    ) -> None:
        settings.AUTH_READ_LIMIT = (7, 60)
        device, other = sign_in(user), sign_in(user)

        responses = [device.get(f"{API}{path}", REMOTE_ADDR=f"192.0.2.{n}") for n in range(8)]

        assert [response.status_code for response in responses] == [200] * 7 + [429]
        assert responses[0].headers["RateLimit"].startswith('"auth-read";r=6;t=')
        assert_is_limited(responses[7], "auth-read", 7, 60)
        assert other.get(f"{API}{path}").status_code == 200
        assert device.head(f"{API}{path}").status_code == 429

    def test_reading_takes_nothing_from_ending(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)
        for _ in range(10):
            assert device.get(f"{API}/auth/sessions").status_code == 200

        assert device.delete(f"{API}/auth/sessions/{user.sessions.get().pk}").status_code == 204

    @pytest.mark.parametrize("path", ["/auth/logout", "/auth/logout-all"])
    def test_so_is_signing_out(
        self, user: User, sign_in: SignIn, settings: Settings, path: str
    ) -> None:
        devices = []
        settings.AUTH_RATE_LIMIT = (2, 60)
        for _ in range(3):
            devices.append(sign_in(user, REMOTE_ADDR=f"192.0.2.{len(devices)}"))
        if path == "/auth/logout-all":
            devices = devices[:1] * 3

        responses = []
        for device in devices:
            responses.append(device.post(f"{API}{path}"))
            Session.objects.update(ended_at=None, end_reason="")

        assert [response.status_code for response in responses[:2]] < [300, 300]
        assert_is_limited(responses[2], "auth", 2, 60)

    def test_other_methods_use_nothing_up(self, client: APIClient, user: User) -> None:
        for _ in range(6):
            responses = [
                client.get(f"{API}/auth/login"),
                client.options(f"{API}/auth/login"),
                client.put(f"{API}/users"),
            ]
            assert [response.status_code for response in responses] == [405, 200, 405]
            assert not any("RateLimit" in response.headers for response in responses)

        assert login(client, password=PASSWORD).status_code == 200

    def test_a_request_without_a_token_is_not_counted(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        for _ in range(6):
            response = client.get(f"{API}/auth/sessions")
            assert response.status_code == 401
            assert response.headers["RateLimit"].startswith('"auth";r=5;')

        assert sign_in(user).get(f"{API}/auth/sessions").status_code == 200

    def test_a_body_that_cannot_be_read_counts(self, client: APIClient, db: None) -> None:
        for path in ("/auth/login", "/auth/refresh"):
            responses = [
                client.generic("POST", f"{API}{path}", "{", "application/json") for _ in range(6)
            ]

            assert [r.status_code for r in responses] == [400] * 5 + [429]
            assert responses[0].json()["code"] == "parse_error"
            assert_is_limited(responses[5], "auth", 5, 60)

    @pytest.mark.parametrize(
        "content_type",
        [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "",
            "application/json; charset=latin-1",
        ],
    )
    @pytest.mark.parametrize("path", ["/auth/login", "/auth/refresh", "/auth/password", "/users"])
    def test_a_body_that_any_web_page_can_send_is_not_counted(
        self, client: APIClient, user: User, path: str, content_type: str
    ) -> None:
        body = '{"identity": "alice", "password": "wrong"}'
        for _ in range(6):
            response = client.generic("POST", f"{API}{path}", body, content_type)
            assert response.status_code == 415
            assert response.json()["code"] == "unsupported_media_type"
            assert response.headers["RateLimit"].startswith('"auth";r=5;')

        response = client.post(f"{API}{path}", {"identity": "alice"})
        assert response.headers["RateLimit"].startswith('"auth";r=4;')

    @pytest.mark.parametrize(
        ("path", "body", "extra", "status"),
        [
            ("/auth/login", "x" * (MEBIBYTE + 1), {}, 413),
            ("/auth/login?x=%00", "{}", {}, 400),
            ("/auth/refresh", "{}", {"HTTP_HOST": "evil.example.com"}, 400),
        ],
    )
    def test_a_request_that_is_rejected_before_its_view_is_counted(
        self,
        client: APIClient,
        db: None,
        settings: Settings,
        path: str,
        body: str,
        extra: Any,
        status: int,
    ) -> None:
        settings.ALLOWED_HOSTS = ["testserver"]

        responses = [client.generic("POST", API + path, body, JSON, **extra) for _ in range(6)]

        assert [response.status_code for response in responses] == [status] * 5 + [429]
        assert responses[0].headers["RateLimit"].startswith('"auth";r=4;')
        assert_is_limited(responses[-1], "auth", 5, 60)

    @pytest.mark.parametrize("content_type", ["text/plain", ""])
    def test_it_is_not_counted_if_any_web_page_can_send_it(
        self, client: APIClient, content_type: str
    ) -> None:
        body = "x" * (MEBIBYTE + 1)

        responses = [
            client.generic("POST", f"{API}/auth/login", body, content_type) for _ in range(6)
        ]

        assert {response.status_code for response in responses} == {413}
        assert responses[-1].headers["RateLimit"].startswith('"auth";r=5;')

    @pytest.mark.parametrize(
        ("method", "path"),
        [("POST", "/articles"), ("POST", "/nothing"), ("GET", "/schema"), ("PUT", "/users/me")],
    )
    def test_a_route_without_a_limit_has_no_headers(
        self, client: APIClient, method: str, path: str
    ) -> None:
        response = client.generic(method, f"{API}{path}?x=%00", "{}", JSON)

        assert response.status_code == 400
        assert "RateLimit" not in response.headers

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_a_list_without_a_token_has_the_headers(self, client: APIClient, method: str) -> None:
        response = client.generic(method, f"{API}/auth/sessions")

        assert response.status_code == 401
        assert response.headers["RateLimit"].startswith('"auth";r=5;')

    @pytest.mark.parametrize("content_type", ["*/*", "application/*"])
    def test_a_wildcard_is_no_type_of_a_body(
        self, client: APIClient, db: None, content_type: str
    ) -> None:
        response = client.generic("POST", f"{API}/auth/login", "{}", content_type)

        assert response.status_code == 415
        assert response.headers["RateLimit"].startswith('"auth";r=5;')

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("DELETE", "/users/1"),
            ("PATCH", "/users/1"),
            ("POST", "/users"),
            ("POST", "/auth/logout"),
            ("GET", "/auth/sessions"),
            ("GET", "/auth/events"),
        ],
    )
    def test_a_token_that_is_not_valid_is_counted(
        self, client: APIClient, db: None, method: str, path: str
    ) -> None:
        client.credentials(HTTP_AUTHORIZATION="Bearer a.b.c")

        responses = [client.generic(method, API + path, "{}", JSON) for _ in range(6)]

        assert [response.status_code for response in responses] == [401] * 5 + [429]
        assert responses[0].json()["code"] == "token_not_valid"
        assert_is_limited(responses[-1], "auth", 5, 60)

    @pytest.mark.parametrize("path", ["/auth/login", "/auth/refresh", "/users"])
    def test_nor_is_no_body_at_all(self, client: APIClient, db: None, path: str) -> None:
        for content_type in ("", "text/plain"):
            response = client.generic("POST", f"{API}{path}", "", content_type)
            assert response.status_code == 415
            assert response.headers["RateLimit"].startswith('"auth";r=5;')

    def test_a_body_of_another_type_with_a_token_is_not_counted(
        self, user: User, sign_in: SignIn
    ) -> None:
        device = sign_in(user)

        response = device.generic("POST", f"{API}/auth/password", "{}", "text/plain")

        assert response.status_code == 415
        assert response.headers["RateLimit"].startswith('"auth";r=5;')
        assert device.post(f"{API}/auth/logout").status_code == 204

    def test_a_cache_that_loses_a_key_rejects_nobody(
        self, client: APIClient, user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        incr = LocMemCache.incr
        assert login(client).status_code == 401

        def lose_once(self: Any, key: str, *args: Any, **kwargs: Any) -> int:
            monkeypatch.setattr(LocMemCache, "incr", incr)
            self.delete(key)
            raise ValueError(key)

        monkeypatch.setattr(LocMemCache, "incr", lose_once)
        response = login(client, password=PASSWORD)

        assert response.status_code == 200
        assert response.headers["RateLimit"].startswith('"auth";r=4;')

    def test_a_cache_that_loses_every_key_rejects_nobody(
        self, client: APIClient, user: User, monkeypatch: pytest.MonkeyPatch, settings: Settings
    ) -> None:
        settings.LOGIN_FAILURE_LIMIT = (1, 900)

        def lose(self: Any, key: str, *args: Any, **kwargs: Any) -> int:
            raise ValueError(key)

        monkeypatch.setattr(LocMemCache, "incr", lose)

        statuses = [login(client).status_code for _ in range(3)]

        assert statuses == [401] * 3
        assert login(client, password=PASSWORD).status_code == 200

    def test_of_40_at_once_5_come_through(
        self, transactional_db: None, make_user: Callable[..., User]
    ) -> None:
        make_user("alice")
        barrier = Barrier(40)

        def attempt(_: int) -> int:
            try:
                barrier.wait()
                return int(login(APIClient(raise_request_exception=False)).status_code)
            finally:
                connection.close()

        start_clear_of_an_edge()
        with ThreadPoolExecutor(40) as pool:
            statuses = list(pool.map(attempt, range(40)))

        assert (statuses.count(401), statuses.count(429)) == (5, 35)


class TestRefresh:
    def test_sessions_behind_one_address_are_counted_apart(
        self, client: APIClient, user: User, stranger: User, sign_in: SignIn
    ) -> None:
        tokens = [sign_in(one).tokens["refresh_token"] for one in (user, stranger)]
        for _ in range(5):
            response = client.post(f"{API}/auth/refresh", {"refresh_token": tokens[0]})
            tokens[0] = response.json()["refresh_token"]

        refused = client.post(f"{API}/auth/refresh", {"refresh_token": tokens[0]})
        other = client.post(f"{API}/auth/refresh", {"refresh_token": tokens[1]})

        assert_is_limited(refused, "auth", 5, 60)
        assert other.status_code == 200
        assert user.sessions.active().exists()

    def test_spent_tokens_count_for_their_session(
        self, client: APIClient, user: User, stranger: User, sign_in: SignIn
    ) -> None:
        spent, other = (sign_in(one).tokens["refresh_token"] for one in (user, stranger))
        for _ in range(6):
            response = client.post(f"{API}/auth/refresh", {"refresh_token": spent})

        assert response.status_code == 429
        assert client.post(f"{API}/auth/refresh", {"refresh_token": other}).status_code == 200

    def test_everything_else_shares_the_addresss_count(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        access = sign_in(user).tokens["access_token"]
        bodies: list[Any] = [{}, {"refresh_token": 1}, {"refresh_token": "x"}]
        bodies += [{"refresh_token": access}, {"refresh_token": access + "x"}, {}]

        responses = [client.post(f"{API}/auth/refresh", body) for body in bodies]

        assert_is_limited(responses[5], "auth", 5, 60)


class TestClientAddress:
    def attempts(self, client: APIClient, *extras: dict[str, str]) -> list[int]:
        return [login(client, **extra).status_code for extra in extras]

    def test_a_forged_header_moves_nobody(self, client: APIClient, user: User) -> None:
        forged = [{"HTTP_X_FORWARDED_FOR": f"198.51.100.{n}"} for n in range(6)]

        assert self.attempts(client, *forged) == [401] * 5 + [429]

    @pytest.mark.parametrize(
        ("count", "forwarded", "address"),
        [
            (0, "198.51.100.1", "127.0.0.1"),
            (1, "198.51.100.1", "198.51.100.1"),
            (1, "203.0.113.9, 198.51.100.1", "198.51.100.1"),
            (2, "203.0.113.9, 198.51.100.1,10.0.0.1", "198.51.100.1"),
            # Fewer entries than proxies: nobody knows who wrote them.
            (2, "198.51.100.1", "127.0.0.1"),
            (1, "", "127.0.0.1"),
            (1, "unknown", "127.0.0.1"),
            (1, "203.0.113.9, <script>", "127.0.0.1"),
            (1, " 2001:DB8:0:0::1 ", "2001:db8::1"),
            (1, "::ffff:198.51.100.1", "198.51.100.1"),
            (1, "fe80::1%eth0", "fe80::1"),
            (1, "203.0.113.5:4711", "203.0.113.5"),
            (1, "[2001:db8::5]:443", "2001:db8::5"),
            (1, "[2001:db8::5]", "2001:db8::5"),
            (1, "[::ffff:203.0.113.5]:443", "203.0.113.5"),
            (1, "203.0.113.9:1, 198.51.100.1:2", "198.51.100.1"),
            (2, "203.0.113.9:1, 198.51.100.1:2, [2001:db8::5]:3", "198.51.100.1"),
            (3, "203.0.113.9:1, 198.51.100.1:2", "127.0.0.1"),
            # Whatever else stands there is nobody's address.
            (1, "203.0.113.5:", "127.0.0.1"),
            (1, "203.0.113.5:99x", "127.0.0.1"),
            (1, "203.0.113.5:4711:4711", "127.0.0.1"),
            (1, "[203.0.113.5", "127.0.0.1"),
            (1, "[]:443", "127.0.0.1"),
            (1, "[[::1]]:443", "127.0.0.1"),
            (1, "2001:db8::5]:443", "127.0.0.1"),
            (1, ":4711", "127.0.0.1"),
            (1, "\u0661.2.3.4", "127.0.0.1"),
            (1, "1.2.3." + "4" * 4000, "127.0.0.1"),
            (1, "[" * 4000, "127.0.0.1"),
            (1, ":" * 4000, "127.0.0.1"),
        ],
    )
    def test_the_trusted_proxies_name_the_client(
        self,
        user: User,
        sign_in: SignIn,
        settings: Settings,
        count: int,
        forwarded: str,
        address: str,
    ) -> None:
        settings.TRUSTED_PROXY_COUNT = count

        sign_in(user, HTTP_X_FORWARDED_FOR=forwarded)

        assert user.sessions.get().ip_address == address

    def test_ipv6_counts_by_its_network_and_mapped_ipv4_as_ipv4(
        self, client: APIClient, user: User
    ) -> None:
        inside = [{"REMOTE_ADDR": f"2001:db8:0:1::{n}"} for n in range(1, 7)]
        mapped = [{"REMOTE_ADDR": f"::ffff:192.0.2.{n}"} for n in range(1, 7)]

        assert self.attempts(client, *inside) == [401] * 5 + [429]
        assert self.attempts(client, {"REMOTE_ADDR": "2001:db8:0:2::1"}) == [401]
        # Not in one bucket with each other, but in one with the plain form.
        assert 429 not in self.attempts(client, *mapped[:4])
        same = [{"REMOTE_ADDR": "192.0.2.7"}] * 5 + [{"REMOTE_ADDR": "::ffff:192.0.2.7"}]
        assert self.attempts(client, *same)[-1] == 429

    def test_ports_move_nobody(self, client: APIClient, user: User, settings: Settings) -> None:
        settings.TRUSTED_PROXY_COUNT = 1
        ports = [{"HTTP_X_FORWARDED_FOR": f"203.0.113.5:{n}"} for n in range(1000, 1006)]
        others = [{"HTTP_X_FORWARDED_FOR": f"203.0.113.{n}:1000"} for n in range(6, 10)]

        assert self.attempts(client, *ports) == [401] * 5 + [429]
        assert self.attempts(client, *others) == [401] * 4

    def test_a_unix_socket_has_no_address(self, user: User, sign_in: SignIn) -> None:
        sign_in(user, REMOTE_ADDR="")

        assert user.sessions.get().ip_address == "0.0.0.0"


class TestLoginFailures:
    @pytest.fixture(autouse=True)
    def only_this_limit(self, settings: Settings) -> None:
        settings.AUTH_RATE_LIMIT = (1000, 60)
        settings.LOGIN_FAILURE_LIMIT = (3, 900)

    def test_an_account_is_counted_whatever_the_address_and_the_name(
        self, client: APIClient, user: User
    ) -> None:
        names = ["alice", "ALICE", "alice@example.com", " alice@ＥXAMPLE.com "]
        responses = [
            login(client, name, REMOTE_ADDR=f"192.0.2.{n}") for n, name in enumerate(names, 1)
        ]

        assert [response.status_code for response in responses] == [401] * 3 + [429]
        assert_is_limited(responses[3], "login-failures", 3, 900)
        right = login(client, "alice", PASSWORD, REMOTE_ADDR="192.0.2.9")
        assert_is_limited(right, "login-failures", 3, 900)

    def test_an_identity_that_does_not_exist_counts_alike(
        self, client: APIClient, db: None
    ) -> None:
        responses = [login(client, name) for name in ("nobody", "NOBODY", " nobody", "nobody")]

        assert [response.status_code for response in responses] == [401] * 3 + [429]
        assert login(client, "somebody").status_code == 401

    def test_a_success_clears_the_count(self, client: APIClient, user: User) -> None:
        for _ in range(3):
            statuses = [login(client).status_code, login(client).status_code]
            assert statuses == [401, 401]
            assert login(client, "alice", PASSWORD).status_code == 200

    def test_a_stranger_never_shuts_the_user_out_at_home(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        home = {"REMOTE_ADDR": "2001:db8:0:1::1"}
        sign_in(user, **home)
        for _ in range(4):
            response = login(client, REMOTE_ADDR="198.51.100.1")
        assert response.status_code == 429

        same_network = {"REMOTE_ADDR": "2001:db8:0:1:ffff::2"}
        assert login(client, "alice", PASSWORD, **same_network).status_code == 200
        assert login(client, "alice", PASSWORD, REMOTE_ADDR="198.51.100.1").status_code == 429
        # At home it counts too, by itself.
        statuses = [login(client, **home).status_code for _ in range(4)]
        assert statuses == [401] * 3 + [429]

    def test_home_is_forgotten_after_30_days(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        sign_in(user)
        user.sessions.update(last_used_at=Now() - timezone.timedelta(days=31))
        for _ in range(4):
            login(client, REMOTE_ADDR="198.51.100.1")

        assert login(client, "alice", PASSWORD).status_code == 429

    def test_a_wrong_current_password_counts(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)
        body = {"current_password": "wrong", "new_password": "a rainy night in June"}

        responses = [device.post(f"{API}/auth/password", body) for _ in range(4)]

        assert [response.status_code for response in responses] == [400] * 3 + [429]
        assert_is_limited(responses[3], "login-failures", 3, 900)
        assert device.get(f"{API}/users/me").status_code == 200

    @pytest.mark.parametrize("at_limit", [True, False])
    def test_beyond_the_limit_every_identity_costs_the_same_statements(
        self, client: APIClient, user: User, stranger: User, sign_in: SignIn, at_limit: bool
    ) -> None:
        sign_in(user, REMOTE_ADDR="192.0.2.77")
        User.objects.filter(pk=stranger.pk).update(is_active=False)
        costs = []
        for identity in ("alice", "nobody", "nobody@example.com", "mallory"):
            for _ in range(3 if at_limit else 4):
                login(client, identity)
            with CaptureQueriesContext(connection) as queries:
                assert login(client, identity).status_code == 429
            costs.append([query["sql"].split()[0] for query in queries])

        assert costs[0] == ["SELECT", "SELECT"] + ["INSERT", "INSERT"] * at_limit
        assert costs == [costs[0]] * 4

    def test_every_failure_costs_the_same_statements(
        self, client: APIClient, user: User, stranger: User
    ) -> None:
        User.objects.filter(pk=stranger.pk).update(is_active=False)
        costs = []
        for identity in ("alice", "nobody", "nobody@example.com", "mallory"):
            with CaptureQueriesContext(connection) as queries:
                assert login(client, identity).status_code == 401
            costs.append([query["sql"].split()[0] for query in queries])

        assert costs == [["SELECT", "SELECT", "INSERT"]] * 4

    def test_a_right_password_that_grants_nothing_clears_nothing(
        self, client: APIClient, user: User
    ) -> None:
        for _ in range(2):
            login(client)
        User.objects.update(must_change_password=True)

        assert login(client, password=PASSWORD).status_code == 403
        assert_is_limited(login(client, password=PASSWORD), "login-failures", 3, 900)

    def test_a_new_password_clears_the_count(self, client: APIClient, user: User) -> None:
        body = {"identity": "alice", "current_password": PASSWORD, "new_password": "rain in June"}
        for _ in range(2):
            login(client)

        assert client.post(f"{API}/auth/password", body).status_code == 204

        assert [login(client).status_code for _ in range(4)] == [401] * 3 + [429]

    def test_a_password_change_that_fails_clears_nothing(
        self, client: APIClient, user: User
    ) -> None:
        similar = {"current_password": PASSWORD, "new_password": "alice@example"}
        for _ in range(2):
            login(client)

        response = client.post(f"{API}/auth/password", {"identity": "alice", **similar})

        assert response.status_code == 400
        assert_is_limited(login(client, password=PASSWORD), "login-failures", 3, 900)

    def test_a_sign_in_to_the_console_clears_the_count(
        self, make_user: Callable[..., User]
    ) -> None:
        make_user("boss", is_staff=True)
        body = {"username": "boss", "password": "wrong"}
        statuses = []
        for password in ("wrong", "wrong", PASSWORD) * 2:
            response = Client().post("/admin/login/?next=/admin/", body | {"password": password})
            statuses.append(response.status_code)

        assert statuses == [200, 200, 302] * 2

    def test_nothing_is_hashed_beyond_the_limit(
        self, client: APIClient, user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hashed = count_hashing(monkeypatch)
        for _ in range(5):
            login(client)

        assert len(hashed) == 3


def test_every_rejection_hashes_one_password(
    client: APIClient, user: User, stranger: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    User.objects.filter(pk=stranger.pk).update(is_active=False)
    hashed = count_hashing(monkeypatch)

    counts = []
    for identity in ("alice", "nobody", "nobody@example.com", "mallory"):
        hashed.clear()
        assert login(client, identity).status_code == 401
        counts.append(len(hashed))

    assert counts == [1, 1, 1, 1]


def count_hashing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    hashed: list[str] = []
    encode = MD5PasswordHasher.encode

    def counted(self: MD5PasswordHasher, password: str, salt: str) -> str:
        hashed.append(password)
        return encode(self, password, salt)

    monkeypatch.setattr(MD5PasswordHasher, "encode", counted)
    return hashed


def start_clear_of_an_edge() -> None:
    """Wait out a window that is about to end: a login at the edge says how long it goes on."""
    client = APIClient(raise_request_exception=False)
    response = login(client, "nobody", REMOTE_ADDR="127.0.0.1")
    left = int(re.search(r"t=(\d+)", response.headers["RateLimit"])[1])
    if left < 5:  # pragma: no cover
        time.sleep(left)
    cache.clear()
