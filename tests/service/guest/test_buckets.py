"""Files in a bucket: boto3 and django-storages with a server that keeps objects in memory."""

import http.server
import threading
from collections.abc import Iterator

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from pytest_django import Settings

from config.storages import media_storage

pytest.importorskip("storages", reason="django-storages[s3] is not installed")


class Bucket(http.server.BaseHTTPRequestHandler):
    """PUT, HEAD, GET and DELETE of objects, as S3 has them."""

    objects: dict[str, bytes] = {}

    def do_PUT(self) -> None:
        self.objects[self.key] = self.rfile.read(int(self.headers["Content-Length"]))
        self.respond(200)

    def do_HEAD(self) -> None:
        self.respond(200 if self.key in self.objects else 404)

    def do_GET(self) -> None:
        self.respond(200, self.objects[self.key])

    def do_DELETE(self) -> None:
        del self.objects[self.key]
        self.respond(204)

    @property
    def key(self) -> str:
        return self.path.partition("?")[0]

    def respond(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def bucket(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    Bucket.objects.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bucket) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        for name, value in {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.server_port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "word",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        }.items():
            monkeypatch.setenv(name, value)
        settings.STORAGES = {**settings.STORAGES, "default": media_storage("media")}
        yield Bucket.objects
        server.shutdown()


def test_files_are_private_objects_and_none_replaces_another(bucket: dict[str, bytes]) -> None:
    first = default_storage.save("photos/a.png", ContentFile(b"first"))
    second = default_storage.save("photos/a.png", ContentFile(b"second"))
    with default_storage.open(first) as file:
        content = file.read()
    default_storage.delete(second)

    assert (first, content) == ("photos/a.png", b"first")
    assert second != first
    assert bucket == {"/media/photos/a.png": b"first"}
    assert "Signature=" in default_storage.url(first)
