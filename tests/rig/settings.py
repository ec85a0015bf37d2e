"""The project's settings with `tests.articles`, the app that tests of shared code use."""

from config.settings import *  # noqa: F403
from config.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.articles"]
ROOT_URLCONF = "tests.rig.urls"
