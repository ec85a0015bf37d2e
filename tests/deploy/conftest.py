import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.cluster import Cluster
from tests.deploy.contained import Image, Place
from tests.rig.postgres import Postgres
from tests.rig.redis import Redis


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    # Not in /tmp, because a container has its own.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory, Redis() as redis:
        Path(directory).chmod(0o755)
        postgres = Postgres(Path(directory) / "postgres")
        yield Place(postgres, redis)
        postgres.stop()


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        yield Image(Path(directory))


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        yield Cluster(Path(directory))
