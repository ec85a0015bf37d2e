from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class ConsoleConfig(AppConfig):
    """Templates and static files that override those of Django's admin, which is listed later."""

    name = "console"


class SiteConfig(AdminConfig):
    default_site = "console.site.ConsoleSite"
