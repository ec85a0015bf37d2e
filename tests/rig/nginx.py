"""nginx with the shipped nginx.conf."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.rig.machine import ROOT, free_port, wait_for

needs_proxy = pytest.mark.skipif(
    shutil.which("nginx") is None or os.geteuid() != 0,
    reason="nginx is not installed, or the user is not root",
)


def certify(directory: Path) -> None:
    """Write a new self-signed certificate and its key."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    command += ["-keyout", f"{directory}/key.pem", "-out", f"{directory}/certificate.pem"]
    subprocess.run(command, check=True, capture_output=True)


def expand(directory: Path, name: str, **variables: str | None) -> None:
    """Write the file of a shipped template, as the image's entry point does; none for None."""
    text = (ROOT / f"deploy/{name}.template").read_text()
    for variable, value in variables.items():
        if value is not None:
            (directory / name).write_text(text.replace(f"${{{variable}}}", value))


@contextlib.contextmanager
def proxy(
    directory: Path,
    *instances: int,
    origins: str | None = None,
    refresh_cookie: str | None = None,
    changes: Mapping[str, str] = {},
) -> Iterator[int]:
    """
    Run nginx in front of the instances at these ports; yield its TLS port.

    It listens on 127.0.0.1 and ::1. `changes` are further replacements in nginx.conf.
    """
    port = free_port()
    certify(directory)
    expand(directory, "allowed_origins.conf", CORS_ALLOWED_ORIGINS=origins)
    expand(directory, "refresh_cookie.conf", REFRESH_COOKIE=refresh_cookie)
    text = (ROOT / "deploy/nginx.conf").read_text()
    servers = "".join(f"server 127.0.0.1:{instance} max_fails=0;" for instance in instances)
    here_instead = {
        # Without a container: the instances are an upstream.
        "    server {": f"upstream instances {{ {servers} }}\n    server {{",
        "set $service web:3000;": "set $service instances;",
        # nginx before 1.25.1 has HTTP/2 as an option of `listen`.
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl http2;",
        "listen [::]:443 ssl;": f"listen [::1]:{port} ssl http2;",
        "http2 on;": "",
        "/var/log/nginx/access.log": f"{directory}/access.log",
        "/etc/nginx/tls": str(directory),
        "/run/allowed_origins.conf": f"{directory}/allowed_origins.conf",
        "/run/refresh_cookie.conf": f"{directory}/refresh_cookie.conf",
        **changes,
    }
    for shipped, here in here_instead.items():
        assert shipped in text
        text = text.replace(shipped, here)
    (directory / "nginx.conf").write_text(text)
    log = directory / "nginx.log"
    command = ["nginx", "-c", f"{directory}/nginx.conf", "-e", f"{log}"]
    command += ["-g", f"daemon off; pid {directory}/nginx.pid;"]
    process = subprocess.Popen(command)
    try:
        wait_for(port, log)
        yield port
    finally:
        process.terminate()
        assert process.wait(timeout=20) == 0, log.read_text()
