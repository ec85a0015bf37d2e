from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class ConsoleConfig(AppConfig):
    """Templates and static files of the console; listed before Django's admin, to override it."""

    name = "console"


class SiteConfig(AdminConfig):
    default_site = "console.site.ConsoleSite"
