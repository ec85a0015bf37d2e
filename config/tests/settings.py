"""The project's settings without the variables of the shell and of .env."""

import os
import re
import secrets
from pathlib import Path

example = Path(__file__).resolve().parents[2] / ".env.example"
os.environ |= dict.fromkeys(re.findall(r"^([A-Z_]+)=", example.read_text(), re.MULTILINE), "")
os.environ |= {
    "DEBUG": "true",
    "DATABASE_URL": "embedded://",
    "SECRET": secrets.token_urlsafe(32),
    "ACCESS_TOKEN_SECRET": secrets.token_urlsafe(32),
    "REFRESH_TOKEN_SECRET": secrets.token_urlsafe(32),
}

from tests.rig.settings import *  # noqa: E402, F403 - after the environment is set

# Other tests cover production hashing.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# A second alias of the test database, and a foreign app (tests/service/guest).
DATABASES["second"] = {**DATABASES["default"], "TEST": {"MIRROR": "default"}}  # noqa: F405 - above
INSTALLED_APPS = [*INSTALLED_APPS, "django_filters", "tests.service.guest"]  # noqa: F405 - above
