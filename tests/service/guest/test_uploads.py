"""Uploads and downloads of an app, hostile ones among them."""

import io
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from api.uploads import MAXIMUM_PARTS, MIB
from conftest import API, SignIn
from tests.rig.client import Client
from tests.rig.gunicorn import Server, serve
from tests.rig.nginx import needs_proxy, proxy
from tests.service.guest.models import Customer, Order, Photo

pytestmark = [pytest.mark.urls("tests.service.guest.project"), pytest.mark.django_db]
GUEST = f"{API}/guest"
PNG = b"\x89PNG\r\n\x1a\n" + b"p" * 100
JPEG = b"\xff\xd8\xff" + b"j" * 100
FORM = "multipart/form-data; boundary=x"
HEADERS = b'--x\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\n'


@pytest.fixture(autouse=True)
def directories(settings: Settings, tmp_path: Path) -> Iterator[None]:
    """Store files in the test's directory; no test leaves a temporary file."""
    settings.MEDIA_ROOT = str(tmp_path / "media")
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path / "temporary")
    (tmp_path / "temporary").mkdir()
    yield
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.fixture
def order() -> Order:
    return Order.objects.create(customer=Customer.objects.create(name="Ada"), number="7")


@pytest.fixture
def url(order: Order) -> str:
    return f"{GUEST}/orders/{order.pk}/photo"


def stored() -> list[bytes]:
    return [Path(photo.file.path).read_bytes() for photo in Photo.objects.all()]


def files(settings: Settings) -> list[Path]:
    return [path for path in Path(settings.MEDIA_ROOT).rglob("*") if path.is_file()]


def download(client: APIClient, url: str) -> tuple[bytes, Any]:
    response = client.get(url)
    try:
        return b"".join(response.streaming_content), response.headers
    finally:
        response.close()


def form(content: bytes, name: bytes = b"a.png") -> bytes:
    return HEADERS % name + content + b"\r\n--x--\r\n"


def long_form(mebibytes: float) -> bytes:
    return form(b"x" * int(mebibytes * MIB))


def put(client: APIClient, url: str, body: bytes, kind: str = FORM, **extra: Any) -> Any:
    return client.generic("PUT", url, body, kind, **extra)


class TestPhoto:
    def test_the_owner_downloads_what_was_uploaded(
        self, user: User, sign_in: SignIn, url: str
    ) -> None:
        device = sign_in(user)

        uploaded = device.put(url, {"file": SimpleUploadedFile("Ä b.png", PNG)}, "multipart")
        content, headers = download(device, url)

        assert (uploaded.status_code, uploaded.json()) == (200, {"name": "Ä b.png"})
        assert content == PNG
        assert headers["Content-Type"] == "image/png"
        assert headers["Content-Disposition"] == "attachment; filename*=utf-8''%C3%84%20b.png"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")

    def test_a_stranger_neither_downloads_nor_replaces_it(
        self, user: User, stranger: User, sign_in: SignIn, client: APIClient, url: str
    ) -> None:
        put(sign_in(user), url, form(PNG))
        other = sign_in(stranger)

        assert (client.get(url).status_code, other.get(url).status_code) == (401, 404)
        assert put(client, url, form(JPEG)).status_code == 401
        assert put(other, url, form(JPEG)).status_code == 404
        assert stored() == [PNG]

    def test_a_new_photo_replaces_the_file(
        self, user: User, sign_in: SignIn, url: str, settings: Settings
    ) -> None:
        device = sign_in(user)
        put(device, url, form(PNG))

        put(device, url, form(JPEG))

        assert stored() == [JPEG]
        assert [path.suffix for path in files(settings)] == [".jpg"]

    def test_the_content_decides_the_kind(
        self, user: User, sign_in: SignIn, url: str, settings: Settings
    ) -> None:
        device = sign_in(user)

        rejected = put(device, url, form(b"<script>alert(1)</script>"))
        renamed = put(device, url, form(PNG, b"a.html"))

        assert rejected.status_code == 400
        assert rejected.json()["errors"][0]["code"] == "not_an_image"
        assert renamed.status_code == 200
        assert [path.suffix for path in files(settings)] == [".png"]
        assert download(device, url)[1]["Content-Type"] == "image/png"

    @pytest.mark.parametrize(
        ("name", "kept"),
        [
            (b"../../etc/passwd", "passwd"),
            (b"..\\\\..\\\\a.png", "a.png"),
            (b"a\x00b.png", "ab.png"),
            (b"a\r\n.png", '"a'),
            (b"&#0;../x.png", "x.png"),
            (b'a\\"; filename=b', 'a"; filename=b'),
            (b"\xff.png", None),
            (b"..", None),
            (b"n" * 500, None),
        ],
    )
    def test_a_hostile_name_stays_a_name(
        self,
        user: User,
        sign_in: SignIn,
        url: str,
        settings: Settings,
        name: bytes,
        kept: str | None,
    ) -> None:
        device = sign_in(user)

        response = put(device, url, form(PNG, name))

        if kept is None:
            assert response.status_code == 400
            assert files(settings) == []
            return
        assert response.json() == {"name": kept}
        (path,) = files(settings)
        assert path.parent == Path(settings.MEDIA_ROOT) / "photos"
        disposition = download(device, url)[1]["Content-Disposition"]
        assert disposition.isprintable()
        assert disposition.startswith("attachment; filename")


class TestKindsOfViews:
    """A limit works for each kind of view, and larger files are on the disk, not in memory."""

    @pytest.mark.parametrize("path", ["function", "function/", "plain"])
    def test_functions(self, client: APIClient, path: str) -> None:
        small = client.generic("POST", f"{GUEST}/uploads/{path}", form(PNG), FORM)
        large = client.generic("POST", f"{GUEST}/uploads/{path}", form(b"x" * 2_700_000), FORM)

        assert small.json() == {"a.png": "InMemoryUploadedFile"}
        assert large.json() == {"a.png": "TemporaryUploadedFile"}

    def test_a_method_of_a_class(self, client: APIClient) -> None:
        url, body = f"{GUEST}/uploads/raw/a.png/", b"x" * 2_700_000

        assert put(client, url, body, "image/png").json() == {"a.png": "TemporaryUploadedFile"}
        assert client.generic("POST", url, body, "image/png").status_code == 413

    def test_the_form_of_a_path_without_its_slash(self, client: APIClient) -> None:
        response = put(client, f"{GUEST}/uploads/raw/a.png", b"x" * 2_700_000, "image/png")

        assert response.json() == {"a.png": "TemporaryUploadedFile"}

    def test_an_action(self, client: APIClient) -> None:
        url, body = f"{GUEST}/uploads/actions/", form(b"x" * 2_000_000)

        assert put(client, url, body).json() == {"a.png": "InMemoryUploadedFile"}
        assert client.generic("POST", url, body, FORM).status_code == 413

    def test_without_a_limit_a_form_may_have_a_mebibyte(self, client: APIClient) -> None:
        url = f"{GUEST}/uploads/small"

        assert client.generic("POST", url, form(b"x" * 1_000_000), FORM).status_code == 200
        assert client.generic("POST", url, form(b"x" * MIB), FORM).status_code == 413

    def test_a_form_to_no_view(self, client: APIClient) -> None:
        assert client.generic("POST", f"{GUEST}/nothing", form(PNG), FORM).status_code == 404

    def test_json_keeps_its_limit(self, client: APIClient) -> None:
        body = b'{"a": "' + b"x" * MIB + b'"}'

        response = put(client, f"{GUEST}/uploads/actions/", body, "application/json")

        assert response.status_code == 413


class TestHostileBodies:
    def test_too_long(self, user: User, sign_in: SignIn, url: str) -> None:
        response = put(sign_in(user), url, form(b"x" * (5 * MIB)))

        assert (response.status_code, response.json()["code"]) == (413, "payload_too_large")
        assert response.json()["detail"] == "The body exceeds 5 MiB."

    def test_no_length(self, user: User, sign_in: SignIn, url: str) -> None:
        response = put(sign_in(user), url, form(PNG), HTTP_TRANSFER_ENCODING="chunked")

        assert (response.status_code, response.json()["code"]) == (411, "length_required")

    @pytest.mark.parametrize("kind", ["application/json", "text/plain", "image/png", ""])
    def test_another_media_type(self, user: User, sign_in: SignIn, url: str, kind: str) -> None:
        response = put(sign_in(user), url, b"{}", kind)

        assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")

    @pytest.mark.parametrize("path", ["orders/{}/photo", "uploads/small", "uploads/plain"])
    @pytest.mark.parametrize("charset", ["punycode", "utf-16", "zlib", "x"])
    def test_another_character_set(
        self, user: User, sign_in: SignIn, order: Order, path: str, charset: str
    ) -> None:
        body = form(b"x" * 200_000)
        url = f"{GUEST}/{path.format(order.pk)}"

        response = sign_in(user).generic("POST", url, body, f"{FORM}; charset={charset}")

        assert response.status_code == 415

    @pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary="])
    def test_no_boundary(self, user: User, sign_in: SignIn, url: str, kind: str) -> None:
        response = put(sign_in(user), url, form(PNG), kind)

        assert (response.status_code, response.json()["code"]) == (400, "parse_error")

    @pytest.mark.parametrize("path", ["function", "small", "plain"])
    @pytest.mark.parametrize("parameters", [b"", b";" * 900])
    def test_10_000_parts_cost_little(
        self, client: APIClient, path: str, parameters: bytes
    ) -> None:
        part = b'--x\r\nContent-Disposition: form-data; name="a"%b\r\n\r\n\r\n' % parameters
        body = (part * 10_000)[: MIB - 10] + b"--x--\r\n"
        started = time.thread_time()

        response = client.generic("POST", f"{GUEST}/uploads/{path}", body, FORM)

        assert time.thread_time() - started < 0.5
        assert response.status_code == 413

    def test_as_many_parts_as_are_read(self, client: APIClient) -> None:
        part = b'--x\r\nContent-Disposition: form-data; name="a%d"\r\n\r\n\r\n'
        body = b"".join(part % number for number in range(MAXIMUM_PARTS))
        url = f"{GUEST}/uploads/small"

        assert client.generic("POST", url, body + b"--x--\r\n", FORM).json() == {"fields": 25}
        assert client.generic("POST", url, body + part + b"--x--\r\n", FORM).status_code == 413

    @pytest.mark.parametrize("size", [50, 3_000_000])
    def test_an_interrupted_file_is_not_stored(
        self, user: User, sign_in: SignIn, url: str, settings: Settings, size: int
    ) -> None:
        whole = form(PNG + b"x" * size)
        interrupted = {"wsgi.input": io.BytesIO(whole[:-50]), "CONTENT_LENGTH": str(len(whole))}

        response = put(sign_in(user), url, b"-", **interrupted)

        assert (response.status_code, response.json()["code"]) == (400, "parse_error")
        assert files(settings) == []

    def test_a_text_with_a_null_character(self, user: User, sign_in: SignIn, url: str) -> None:
        part = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\na\x00b\r\n'

        response = put(sign_in(user), url, part + b"--x--\r\n")

        assert response.json()["errors"][0] | {"detail": ""} == {
            "field": "file", "code": "invalid", "detail": ""
        }  # fmt: skip

    def test_a_rejected_upload_is_read_to_its_end(self, client: APIClient, url: str) -> None:
        """A socket that is closed with unread bytes is reset: the client gets no response."""
        body = io.BytesIO(form(b"x" * MIB))
        sent = {"wsgi.input": body, "CONTENT_LENGTH": str(len(body.getvalue()))}

        response = put(client, url, b"-", **sent)

        assert response.status_code == 401
        assert body.read() == b""


@pytest.mark.heavy
class TestServer:
    """Uploads over a socket. The limit of the view is 3 MiB."""

    PATH = f"{GUEST}/uploads/function"

    @pytest.fixture
    def temporary(self, tmp_path: Path) -> Path:
        (tmp_path / "of-server").mkdir()
        return tmp_path / "of-server"

    @pytest.fixture
    def server(self, django_db_setup: None, tmp_path: Path, temporary: Path) -> Iterator[Server]:
        settings = {"DJANGO_SETTINGS_MODULE": "tests.service.guest.settings"}
        with serve(tmp_path / "log", TMPDIR=str(temporary), **settings) as server:
            yield server

    def test_a_large_file_is_received_and_leaves_no_other(
        self, server: Server, temporary: Path
    ) -> None:
        response, body = server.request("POST", self.PATH, long_form(2.9), **{"Content-Type": FORM})

        assert (response.status, json.loads(body)) == (200, {"a.png": "TemporaryUploadedFile"})
        assert list(temporary.glob("*.upload*")) == []

    @pytest.mark.parametrize("path", [PATH, f"{GUEST}/orders/1/photo"])
    def test_a_rejection_arrives_whatever_the_body(self, server: Server, path: str) -> None:
        kind = {"Content-Type": FORM, "Connection": "close"}
        long = server.request("POST", path, long_form(12), **kind)[0].status
        chunked = server.request("POST", path, iter([long_form(2)]), **kind)[0].status
        unauthorised = server.request("PUT", f"{GUEST}/orders/1/photo", long_form(4), **kind)

        assert (long, chunked, unauthorised[0].status) == (413, 411, 401)

    def test_an_interrupted_upload_leaves_no_file(self, server: Server, temporary: Path) -> None:
        head = f"POST {self.PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\n"
        head += f"Content-Length: {2_950_000}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=15) as connection:
            connection.sendall(head.encode() + long_form(2.5))
            connection.shutdown(socket.SHUT_WR)
            received = connection.recv(4096)

        assert received.startswith(b"HTTP/1.1 400 ")
        assert list(temporary.glob("*.upload*")) == []

    @needs_proxy
    def test_nginx_and_the_service_reject_alike(self, server: Server, tmp_path: Path) -> None:
        """With the lines of nginx.conf that an operator adds for an upload."""
        changes = {
            '# "~^/api/v1/orders/[0-9]+/photo" "The body exceeds 5 MiB."': (
                f'"~^{self.PATH}" "The body exceeds 3 MiB."'
            ),
            "# location ~ ^/api/v1/orders/[0-9]+/photo {": f"location ~ ^{self.PATH} {{",
            "#     client_max_body_size 6m;": "client_max_body_size 4m;",
            "#     proxy_pass": "proxy_pass",
            "# }": "}",
        }
        with proxy(tmp_path, server.port, changes=changes) as port:
            client = Client(port, tls=True)
            accepted, service, nginx = [
                client.send("POST", self.PATH, long_form(size), **{"Content-Type": FORM})
                for size in (2.9, 3.5, 4.5)
            ]

        assert accepted.json == {"a.png": "TemporaryUploadedFile"}
        for response in (service, nginx):
            assert response.status == 413
            assert response.json["detail"] == "The body exceeds 3 MiB."
        assert service.json | {"request_id": ""} == nginx.json | {"request_id": ""}
