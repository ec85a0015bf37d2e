from django.apps import AppConfig
from django.conf import settings
from django.core.checks import Tags, register

from config import api_checks, checks, email_checks, passkey_checks, storage_checks


class ProjectConfig(AppConfig):
    name = "config"
    verbose_name = settings.PROJECT_NAME

    def ready(self) -> None:
        for module in (checks, email_checks, passkey_checks, api_checks, storage_checks):
            for check in module.CHECKS:
                register(check)
        for check in (*checks.SERVER_CHECKS, *storage_checks.SERVER_CHECKS):
            register(check, Tags.database, checks.SERVER)
