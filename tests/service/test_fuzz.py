"""Generated requests from the schema, for a bounded time."""

import json
from typing import Any

import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from rest_framework.test import APIClient
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from accounts.models import User
from api.views import schema as document
from conftest import API, PASSWORD

schema = schemathesis.openapi.from_dict(json.loads(document()))
schema.app = get_wsgi_application()


@pytest.fixture
def bearer(user: User, settings: Any) -> str:
    """The token of a user that requests may change or delete."""
    settings.AUTH_RATE_LIMIT = settings.LOGIN_FAILURE_LIMIT = (1_000_000, 60)
    settings.ALLOWED_HOSTS = ["localhost", "testserver"]
    body = {"identity": "alice", "password": PASSWORD}
    return str(APIClient().post(f"{API}/auth/login", body).json()["access_token"])


@schema.parametrize()
@hypothesis_settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_response_conforms_to_the_schema(
    case: Any, bearer: str, transactional_db: None
) -> None:
    # A schema can't say that a password is too common, or a cursor another list's; and what a list
    # does not know in its query, it ignores.
    excluded = [positive_data_acceptance]
    if case.method == "GET":
        excluded.append(negative_data_rejection)
    case.call_and_validate(headers={"Authorization": f"Bearer {bearer}"}, excluded_checks=excluded)
