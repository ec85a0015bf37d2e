"""The WSGI application, behind the start-up checks: Django runs none in a web process."""

import io
import os
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

from config.checks import exit_on_faults

exit_on_faults()

from django.conf import settings

settings.DATABASES["default"] |= settings.WEB_DATABASE
from django.core.wsgi import get_wsgi_application

from config.middleware import drain

django_application = get_wsgi_application()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """
    Give a chunked body a length, since Django takes a body without one for empty.

    One byte more than the limit is read, so that what is too long is refused with the rest.
    """
    if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
        stream = environ["wsgi.input"]
        body = stream.read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
        drain(stream)
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
    return django_application(environ, start_response)
