from django.apps import AppConfig


class GuestConfig(AppConfig):
    """A small foreign app, written as DRF's tutorial would; installed for the tests only."""

    name = "tests.service.guest"
