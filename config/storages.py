"""Parsers for the variables that say where files of users are stored."""

import re
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent


def parse_directory(value: str) -> str:
    """Parse a directory for files of users, which must not be beside the code or contain it."""
    path = Path(value).resolve()
    is_near = path.is_relative_to(CHECKOUT) or CHECKOUT.is_relative_to(path)
    if not value.startswith("/") or is_near:
        raise ValueError("the absolute path of a directory outside the project's directory")
    return value


def parse_bucket(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value):
        raise ValueError("the name of an S3 bucket: letters, digits, dots and hyphens")
    return value


def media_storage(bucket: str) -> dict[str, Any]:
    """
    Return the storage of files of users.

    In a bucket files keep no name of an earlier one, and their URLs are signed. boto3 reads
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL_S3.
    """
    if not bucket:
        return {"BACKEND": "django.core.files.storage.FileSystemStorage"}
    options = {"bucket_name": bucket, "file_overwrite": False}
    return {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}
