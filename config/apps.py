from django.apps import AppConfig
from django.conf import settings
from django.core.checks import Tags, register

from config import api_checks, checks, email_checks


class ProjectConfig(AppConfig):
    name = "config"
    verbose_name = settings.PROJECT_NAME

    def ready(self) -> None:
        for check in (*checks.CHECKS, *email_checks.CHECKS, *api_checks.CHECKS):
            register(check)
        for check in checks.SERVER_CHECKS:
            register(check, Tags.database, checks.SERVER)
