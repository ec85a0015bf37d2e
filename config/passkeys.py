"""The variables of passkeys: the relying party that they belong to, and where they may be used."""

import re
from urllib.parse import urlsplit

from config.values import DEFAULT_PORTS, is_host, is_ipv6, is_origin, split_names

# An Android app: the SHA-256 of its signing certificate, in base64url.
ANDROID = re.compile(r"android:apk-key-hash:[A-Za-z0-9_-]{43}")
ORIGINS = (
    "comma-separated origins such as https://app.example.com, in lower case, each with its scheme, "
    "without path, trailing slash and default port; an Android app is android:apk-key-hash:…"
)


def parse_rp_id(value: str) -> str:
    """Read the id of a relying party, which is a domain: browsers accept no IP address."""
    if not is_domain(value):
        raise ValueError("a domain in lower case, without scheme and port, and no IP address")
    return value


def parse_origins(value: str) -> list[str]:
    """Read origins in the form that browsers and Android write into a credential."""
    origins = split_names(value)
    if not all(ANDROID.fullmatch(origin) or is_web_origin(origin) for origin in origins):
        raise ValueError(ORIGINS)
    return origins


def is_web_origin(origin: str) -> bool:
    return origin.startswith(("https://", "http://")) and is_origin(origin)


def is_domain(host: str) -> bool:
    is_numeric = re.fullmatch(r"[0-9.]+", host) or is_ipv6(host.strip("[]"))
    return is_host(host) and host == host.lower() and ":" not in host and not is_numeric


def default_relying_party(url: str) -> tuple[str, list[str]]:
    """Return the id and the origins for the base of links, or none for an IP address."""
    parts = urlsplit(url)
    if not parts.hostname or not is_domain(parts.hostname):
        return "", []
    port = f":{parts.port}" if parts.port else ""
    is_default = str(parts.port) == DEFAULT_PORTS[parts.scheme]
    return parts.hostname, [f"{parts.scheme}://{parts.hostname}{'' if is_default else port}"]
