"""Startup rules for passkeys: no browser uses them on an origin outside the relying party."""

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage

from config.passkeys import default_relying_party
from config.rules import error

VARIABLES = {"WEBAUTHN_RP_ID", "WEBAUTHN_ORIGINS"}


def check_relying_party(**kwargs: Any) -> list[CheckMessage]:
    """Report each rule once, and none about a variable that could not be read."""
    if VARIABLES & settings.FAULTY_VARIABLES:
        return []
    if bool(settings.WEBAUTHN_RP_ID) != bool(settings.WEBAUTHN_ORIGINS):
        return [error("config.E040")]
    hosts = {origin: urlsplit(origin).hostname for origin in web_origins()}
    faults: list[CheckMessage] = []
    if not all(is_at_or_below(str(host), settings.WEBAUTHN_RP_ID) for host in hosts.values()):
        faults.append(error("config.E041"))
    if not (is_default() or all(is_secure(origin, str(host)) for origin, host in hosts.items())):
        faults.append(error("config.E042"))
    return faults


def is_default() -> bool:
    """Tell whether the origins are those of FRONTEND_URL or PUBLIC_URL; E024 is about these."""
    _, origins = default_relying_party(settings.FRONTEND_URL or settings.PUBLIC_URL)
    return bool(origins == settings.WEBAUTHN_ORIGINS)


def web_origins() -> list[str]:
    return [origin for origin in settings.WEBAUTHN_ORIGINS if not origin.startswith("android:")]


def is_at_or_below(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")


def is_secure(origin: str, host: str) -> bool:
    """Tell whether browsers offer passkeys there; they trust localhost without TLS."""
    is_local = settings.DEBUG and is_at_or_below(host, "localhost")
    return origin.startswith("https://") or is_local


CHECKS = (check_relying_party,)
