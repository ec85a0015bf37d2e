"""The settings of tests with the routes of this app, for a server."""

from tests.rig.settings import *  # noqa: F403
from tests.rig.settings import INSTALLED_APPS, REST_FRAMEWORK

INSTALLED_APPS = [*INSTALLED_APPS, "django_filters", "tests.service.guest"]
ROOT_URLCONF = "tests.service.guest.project"
REST_FRAMEWORK = {**REST_FRAMEWORK, "DEFAULT_THROTTLE_RATES": {"uploads": "20/day"}}
