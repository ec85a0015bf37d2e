"""Check the dependencies of a deployment, and the lifecycle of an account on a running service."""

import smtplib
from argparse import ArgumentParser
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core.checks import Tags, run_checks
from django.core.mail import EmailMessage
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from accounts.models import TOTPDevice
from health import views
from health.views import CheckError
from ops.service_checks import Service, SkippedError

API = f"/{settings.API_PATH.rstrip('/')}"
SKEW = 5  # seconds


class Command(BaseCommand):
    help = (
        "Check configuration, database, cache, migrations, clock and the encryption of second "
        "factors. With --mail, also send an email. With --url, also check a running service as a "
        "temporary user: register, log in, refresh, replay; where the doctor can read the "
        "development mailbox also verify the address, reset the password, change the address, add "
        "a second factor, log in with it and undo the change; delete the user. Exits with 1 if a "
        "check fails."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--url", help="URL of a running service, such as http://localhost:3000")
        parser.add_argument("--host", default="", help="the service's name, if not the URL's")
        parser.add_argument("--mail", metavar="ADDRESS", help="send an email to this address")

    def handle(
        self, *args: Any, url: str | None, host: str, mail: str | None, **options: Any
    ) -> None:
        self.failures = self.skipped = 0
        self.run_check("configuration", check_configuration)
        if not self.failures:
            for name, check in (
                ("database", check_database),
                ("migrations", check_migrations),
                ("cache", check_cache),
                ("clock", check_clock),
                ("second factors", check_factors),
            ):
                self.run_check(name, check)
        if mail:
            self.run_check("email", lambda: send_email(mail))
        if url:
            self.check_service(Service(url.rstrip("/"), host))
        if self.failures:
            raise CommandError(f"{self.failures} check(s) failed.")
        skipped = f"; {self.skipped} skipped" if self.skipped else ""
        self.stdout.write(f"All checks passed{skipped}.")

    def run_check(self, name: str, check: Callable[[], str]) -> bool:
        """Run a check, print its result, and return whether it passed."""
        try:
            result = check()
        except SkippedError as error:
            self.skipped += 1
            self.stdout.write(f"  skipped {name}: {error}")
            return False
        except Exception as error:  # noqa: BLE001 - a check may raise anything, and it is reported
            self.failures += 1
            reason = str(error).partition("\n")[0] or type(error).__name__
            self.stdout.write(self.style.ERROR(f"  failed  {name}: {reason}"))
            return False
        self.stdout.write(f"  ok      {name}: {result}")
        return True

    def check_service(self, service: Service) -> None:
        """Run the steps in order, up to one that fails or is skipped, and delete the user."""
        steps = (
            ("readiness", service.check_readiness),
            ("register", service.register),
            ("log in", service.log_in),
            ("client address", service.check_address),
            ("refresh", service.refresh),
            ("refresh by cookie", service.refresh_by_cookie),
            ("replay", service.replay),
            ("end", service.check_ended),
            ("verify address", service.verify),
            ("forgot password", service.forget),
            ("reset password", service.reset),
            ("change address", service.change_address),
            ("second factor", service.add_factor),
            ("undo", service.undo),
        )
        try:
            all(self.run_check(name, step) for name, step in steps)
        finally:
            self.run_check("clean up", service.clean_up)


def check_configuration() -> str:
    faults = [m for m in run_checks() if m.is_serious() and not m.is_silenced()]
    if faults:
        raise CheckError(" ".join(fault.msg for fault in faults))
    return "no faults" + (", DEBUG is on" if settings.DEBUG else "")


def check_database() -> str:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('server_version'), lower('É') = 'é',"
            " current_setting('statement_timeout') <> '0'"
        )
        version, folds, has_timeout = cursor.fetchone()
    if not folds:
        raise CheckError("the locale does not fold the case of É; create the database with C.UTF-8")
    if settings.DB_PGBOUNCER and not has_timeout:
        role = connection.settings_dict["USER"]
        raise CheckError(
            f"no statement timeout is set; use ALTER ROLE {role} SET statement_timeout = '2500ms'"
        )
    for fault in run_checks(tags=[Tags.database], databases=["default"]):
        raise CheckError(fault.msg)
    return f"PostgreSQL {version}"


def check_migrations() -> str:
    views.check_migrations()
    return "all applied"


def check_cache() -> str:
    views.check_cache()
    return "shared" if settings.CACHE_URL else "in this process only"


def check_clock() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        skew = abs((cursor.fetchone()[0] - datetime.now(UTC)).total_seconds())
    if skew > SKEW:
        raise CheckError(f"the clock differs from the database's by {skew:.0f} s")
    return f"within {SKEW} s of the database's"


def check_factors() -> str:
    """Count the secrets of authenticator apps that are encrypted under a former SECRET."""
    outdated = sum(1 for _ in TOTPDevice.objects.outdated())
    if outdated:
        return f"{outdated} secret(s) under a former SECRET; run manage.py rotatefactors"
    return "all secrets under SECRET"


def send_email(address: str) -> str:
    """Send an email as the worker does, without the outbox, and report what the server said."""
    if not settings.EMAIL_ENABLED:
        raise CheckError("email is disabled (EMAIL_URL=none)")
    text = "The doctor of Latchkey sent this email. Its headers say whether SPF and DKIM pass."
    message = EmailMessage("Test of email delivery", text, None, [address])
    message.extra_headers["Auto-Submitted"] = "auto-generated"
    try:
        message.send()
    except smtplib.SMTPRecipientsRefused as error:
        code, reply = next(iter(error.recipients.values()))
        raise CheckError(f"{code} {reply.decode(errors='replace')}") from error
    return f"accepted for {address} from {settings.DEFAULT_FROM_EMAIL}; look whether it arrives"
