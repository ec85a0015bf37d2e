from datetime import UTC, datetime

import pytest
from pytest_django import Settings

from console.tests import samples


@pytest.fixture
def sample(db: None, settings: Settings) -> samples.Sample:
    """A row of a clone's model, in a console with this model."""
    settings.ROOT_URLCONF = samples.install()
    at = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
    row = samples.Sample(title="Lamp", data={"a": [1, None]}, at=at, secret="key")
    row.save()
    return row
