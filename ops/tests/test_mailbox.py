"""The development mailbox: its files, its log line and its pages."""

import logging
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from django.core.mail import EmailMultiAlternatives
from django.test import Client
from pytest_django import Settings

from accounts.emails import open_mailer
from accounts.models import OutgoingEmail, User
from tests.rig.gunicorn import database_url
from tests.rig.machine import ROOT, free_port, wait_for
from tests.rig.smtp import use_mailer

LINK = "http://localhost:3000/account/reset-password#token=abc_-123"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def mailbox(settings: Settings, tmp_path: Path) -> Path:
    settings.DEBUG = True
    use_mailer(settings, f"filemail://{tmp_path}/mail")
    return tmp_path / "mail"


def send(subject: str, text: str = LINK, html: str = f"<a href='{LINK}'>{LINK}</a>") -> None:
    message = EmailMultiAlternatives(subject, text, "latchkey@localhost", ["alice@example.com"])
    message.attach_alternative(html, "text/html")
    with open_mailer() as mailer:
        mailer.send_messages([message])


def test_each_email_is_a_file_that_others_cannot_read(mailbox: Path) -> None:
    send("One")
    send("Two")

    assert len(list(mailbox.iterdir())) == len(list(mailbox.glob("*.eml"))) == 2
    assert mailbox.stat().st_mode & 0o077 == 0


def test_the_log_has_the_link(mailbox: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    send("Reset your password")
    send("Your password was changed", text="No link here.")

    lines = [record.getMessage() for record in caplog.records]
    assert f"Email to alice@example.com: Reset your password ({LINK})" in lines
    assert "Email to alice@example.com: Your password was changed (no link)" in lines


def test_outside_debug_the_log_has_no_link(
    mailbox: Path, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.MAILBOX = None  # as settings.py has it outside DEBUG
    caplog.set_level(logging.INFO)
    send("Reset your password")

    assert "token=" not in caplog.text


def test_the_pages_list_and_show_emails_newest_first(mailbox: Path, client: Client) -> None:
    assert "No email yet" in Client().get("/mail").content.decode()
    send("First")
    send("Second")

    page = Client().get("/mail").content.decode()
    names = [path.stem for path in sorted(mailbox.glob("*.eml"))]
    assert page.index("Second") < page.index("First")
    shown = Client().get(f"/mail/{names[0]}").content.decode()
    assert "<dt>To</dt><dd>alice@example.com</dd>" in shown
    assert f'href="{LINK}"' in shown
    assert LINK in Client().get(f"/mail/{names[0]}/html").content.decode()


@pytest.mark.django_db(transaction=True)
def test_make_run_sends_email_and_stops_the_worker_with_the_service(
    make_user: Callable[..., User], tmp_path: Path
) -> None:
    OutgoingEmail.objects.enqueue("verify_email", make_user())
    recipe = subprocess.run(
        ["make", "--dry-run", "run"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    [_, last] = recipe.stdout.split("manage.py setup\n")
    log = tmp_path / "log"
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DATABASE_URL": database_url(),
        "EMAIL_URL": f"filemail://{tmp_path}/mail",
        "PORT": str(free_port()),
    }
    with log.open("w") as output:
        service = subprocess.Popen(
            ["sh", "-c", last], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    try:
        wait_for(int(environment["PORT"]), log)
        assert until(lambda: [*(tmp_path / "mail").glob("*.eml")])
        worker = next(p for p in psutil.Process(service.pid).children() if is_worker(p))
    finally:
        service.terminate()
        service.wait(timeout=40)

    psutil.wait_procs([worker], timeout=10)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    assert "Traceback" not in log.read_text()


def is_worker(process: psutil.Process) -> bool:
    return "mailworker" in process.cmdline()


def until(condition: Callable[[], object]) -> bool:
    end = time.monotonic() + 20
    while not (result := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return bool(result)


def test_a_hostile_email_runs_nothing(mailbox: Path) -> None:
    send(HOSTILE, text=HOSTILE, html=HOSTILE)
    [path] = mailbox.glob("*.eml")

    for url in ("/mail", f"/mail/{path.stem}"):
        response = Client().get(url)
        assert HOSTILE not in response.content.decode()
        assert "default-src 'self'" in response["Content-Security-Policy"]
        assert response["Referrer-Policy"] == "no-referrer"
    html = Client().get(f"/mail/{path.stem}/html")
    assert html["Content-Security-Policy"] == "sandbox; default-src 'none'"


def test_an_email_without_an_html_part_is_shown(mailbox: Path) -> None:
    mailbox.mkdir()
    (mailbox / "odd.eml").write_bytes(b"Subject: =?utf-8?q?\xff?=\r\n\r\n\x00\xff plain")

    assert Client().get("/mail").status_code == 200
    assert Client().get("/mail/odd").status_code == 200
    assert Client().get("/mail/odd/html").content == b""


ODD = {
    "empty": b"",
    "no header": b"\r\n\r\nplain",
    "raw bytes": b"Subject: \xff\xfe\r\nTo: \x80@\r\n\r\n\xff plain",
    "a broken word": b"Subject: =?utf-8?b?!!!?= =?x?q?=FF?=\r\nFrom: =?utf-8?q?a=0A?=\r\n\r\nplain",
    "an unknown charset": b"Content-Type: text/plain; charset=no-such\r\n\r\n\xffplain",
    "an odd charset": b"Content-Type: text/plain; charset*=x'y'%FF; charset=\r\n\r\nplain",
    "a lone surrogate": b"Content-Type: text/plain; charset=utf-7\r\n\r\n+2AA- plain",
    "an odd address": b'To: <\r\nCc: ,;:@[\r\nBcc: a@b <\r\nReply-To: "\r\n\r\nplain',
    "an odd date": b"Date: 99 Foo 99999 99:99:99 +99999999\r\nMessage-ID: <\r\n\r\nplain",
    "an odd encoding": b"Content-Transfer-Encoding: x-?\r\n\r\nplain",
    "broken base64": b"Content-Transfer-Encoding: base64\r\n\r\nplain=",
    "a broken multipart": b"Content-Type: multipart/alternative; boundary=\r\n\r\n--\r\nx",
    "a related part": b"Content-Type: multipart/related; start=x; boundary=b\r\n\r\n--b\r\n\r\nx",
    "an email in an email": b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nx",
    "many levels": b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level)
        for level in range(2000)
    ),
}


@pytest.mark.parametrize("source", [pytest.param(ODD[name], id=name) for name in ODD])
def test_any_file_is_shown(mailbox: Path, source: bytes) -> None:
    mailbox.mkdir()
    (mailbox / "odd.eml").write_bytes(source)
    (mailbox / "directory.eml").mkdir()

    for path in ("/mail", "/mail/odd", "/mail/odd/html"):
        assert Client().get(path).status_code == 200, path
    if source.endswith(b"plain"):
        assert "plain" in Client().get("/mail/odd").content.decode()
    assert Client().get("/mail/directory").status_code == 404


@pytest.mark.parametrize("name", ["nothing", "..", "..%2F..%2Fsecret", "%00", "a" * 5000])
def test_a_name_never_becomes_a_path(mailbox: Path, name: str) -> None:
    (mailbox.parent / "secret.eml").write_text("Subject: secret")

    assert Client().get(f"/mail/{name}").status_code == 404


@pytest.mark.parametrize(
    ("debug", "url"),
    [(False, "filemail:///tmp/mail"), (True, "consolemail://"), (True, "none"), (False, "none")],
)
def test_without_debug_and_filemail_there_are_no_pages(
    settings: Settings, debug: bool, url: str
) -> None:
    use_mailer(settings, url)
    settings.DEBUG = debug

    for path in ("/mail", "/mail/name", "/mail/name/html"):
        assert Client().get(path).status_code == 404
