"""
Uploads: bodies that a view reads itself, with a limit of its own.

A view without `upload_limit` gets a body of up to 1 MiB, which has been read.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from django.http import HttpRequest
from django.http.request import UnreadablePostError
from django.urls import Resolver404, ResolverMatch, resolve
from django.utils.translation import gettext_lazy as _
from rest_framework.exceptions import APIException

MIB = 1024 * 1024
# The headers of a part may take 2 ms to parse.
MAXIMUM_PARTS = 25

View = TypeVar("View", bound=Callable[..., Any])


class UploadTooLarge(APIException):
    status_code, default_code = 413, "payload_too_large"


class LengthRequired(APIException):
    status_code, default_code = 411, "length_required"


def upload_limit(size: int) -> Callable[[View], View]:
    """
    Let a view receive bodies of up to `size` bytes that are not JSON, without reading them first.

    It decorates a function (above `@api_view`), a class, or a method of a class. A class may also
    have the attribute `upload_limit`.
    """

    def decorate(view: View) -> View:
        view.upload_limit = size  # type: ignore[attr-defined]  # read by `limit_of`
        return view

    return decorate


def limit_of(request: HttpRequest) -> int | None:
    """Return the limit in bytes if the view of this request reads the body itself."""
    has_body = request.META.get("CONTENT_LENGTH") not in {None, "", "0"}
    is_upload = has_body and request.content_type != "application/json"
    match = resolve_either_form(request.path_info) if is_upload else None
    if match is None:
        return None
    view: Any = match.func
    method = str(request.method).lower()
    owner = owner_of(view)
    action = getattr(owner, getattr(view, "actions", {}).get(method, method), None)
    limits = (getattr(source, "upload_limit", None) for source in (action, view, owner))
    return next((limit for limit in limits if limit), None)


def owner_of(view: Any) -> Any:
    """Return the class of a view of DRF or Django, or the `ModelAdmin`; None for a function."""
    owners = (getattr(view, name, None) for name in ("cls", "view_class", "model_admin"))
    return next((owner for owner in owners if owner), None)


def resolve_either_form(path: str) -> ResolverMatch | None:
    """Resolve a path, or the same with a slash, as `TrailingSlashMiddleware` does."""
    for form in (path, f"{path}/"):
        try:
            return resolve(form)
        except Resolver404:
            continue
    return None


def prepare_upload(request: HttpRequest, limit: int) -> None:
    """Let the view read a body within its limit; raise an exception for any other."""
    if "Transfer-Encoding" in request.headers:
        raise LengthRequired
    length = int(request.META.get("CONTENT_LENGTH") or 0)
    if length > limit:
        raise UploadTooLarge(_("The body exceeds %(size)g MiB.") % {"size": limit / MIB})
    Upload(request, length)


class Upload:
    """
    The body of a request while it is being read.

    A client that disconnects leaves a body without its end, which Django's parser accepts as a
    complete file.
    """

    def __init__(self, request: HttpRequest, length: int) -> None:
        self.request, self.left = request, length
        self.source, self.parts = request.read, PartCounter(request)
        request.read = self.read  # type: ignore[method-assign]  # the stream that parsers read

    def read(self, size: int | None = None) -> bytes:
        try:
            return self.read_checked(size)
        except (UnreadablePostError, UploadTooLarge):
            # Django would leave the temporary file to the garbage collector.
            for handler in self.request.upload_handlers:
                handler.upload_interrupted()
            raise

    def read_checked(self, size: int | None) -> bytes:
        wanted = self.left if size is None or size < 0 else min(size, self.left)
        data = self.source(wanted)
        if len(data) < wanted:
            raise UnreadablePostError("The body ended before its Content-Length.")
        self.left -= len(data)
        self.parts.add(data)
        return data


class PartCounter:
    """Counts the parts of a multipart body, of which parsing costs most."""

    def __init__(self, request: HttpRequest) -> None:
        boundary = (request.content_params or {}).get("boundary", "")
        self.delimiter = f"--{boundary}".encode() if boundary else b""
        self.count, self.end = 0, b""

    def add(self, data: bytes) -> None:
        """Count the parts of the next bytes; raise UploadTooLarge for too many."""
        if not self.delimiter:
            return
        data = self.end + data
        self.count += data.count(self.delimiter)
        # A delimiter may be in two reads.
        self.end = data[-len(self.delimiter) + 1 :]
        if self.count > MAXIMUM_PARTS + 1:  # with the delimiter of the end
            raise UploadTooLarge(_("The form has too many parts."))
