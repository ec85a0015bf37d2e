import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.tests.serving import Redis
from deploy.tests.contained import Image, Place
from faults.world import Postgres


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    # Outside of /tmp, which a container has for itself.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory, Redis() as redis:
        Path(directory).chmod(0o755)
        postgres = Postgres(Path(directory) / "postgres")
        yield Place(postgres, redis)
        postgres.stop()


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        yield Image(Path(directory))
