"""Startup rules for files of users: where they are stored."""

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage
from django.core.files.storage import default_storage
from django.db.models import FileField

from config.rules import error


def check_storage(**kwargs: Any) -> list[CheckMessage]:
    """Reject files without a place: Django would write them to the current directory."""
    if settings.MEDIA_ROOT or settings.MEDIA_BUCKET or is_faulty():
        return []
    return [
        error("config.E034", field=field)
        for model in apps.get_models()
        for field in model._meta.get_fields()
        if isinstance(field, FileField) and field.storage is default_storage
    ]


def check_storage_packages(**kwargs: Any) -> list[CheckMessage]:
    packages = ("storages", "boto3")
    if not settings.MEDIA_BUCKET or all(map(importlib.util.find_spec, packages)):
        return []
    return [error("config.E035")]


def check_directory(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Reject a directory that a server cannot write. Commands may run on other machines."""
    is_unused = settings.DEBUG or settings.MEDIA_BUCKET or not settings.MEDIA_ROOT
    if not databases or is_unused or os.access(settings.MEDIA_ROOT, os.W_OK | os.X_OK):
        return []
    return [error("config.E036")]


def is_faulty() -> bool:
    return bool({"MEDIA_ROOT", "MEDIA_BUCKET"} & settings.FAULTY_VARIABLES)


CHECKS = (check_storage, check_storage_packages)
SERVER_CHECKS = (check_directory,)
