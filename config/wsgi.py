"""The WSGI application. It runs the startup checks, which Django skips in a web process."""

import gc
import io
import os
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

from config.startup import exit_on_faults

exit_on_faults()

from django.conf import settings

settings.DATABASES["default"] |= settings.WEB_DATABASE
from ops import telemetry

telemetry.start()
from django.core.wsgi import get_wsgi_application

from accounts.passwords import hashing_places
from api.middleware import drain
from ops.metrics import metrics_application

django_application = get_wsgi_application()
hashing_places()  # The metric of the places has its value before the first password.
metrics = metrics_application() if settings.METRICS_PORT else None

# Loaded modules are permanent, and a full collection over them takes 70 ms. Requests create few
# reference cycles, so collections are less frequent than the default of every 700 objects.
gc.freeze()
gc.set_threshold(20_000, 20, 50)


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """
    Serve metrics on METRICS_PORT, and Django on PORT.

    Django considers a body without a length empty, so a chunked body gets a length. One byte more
    than the limit is read, so that Django rejects a body that is too long.
    """
    if metrics and environ["SERVER_PORT"] == str(settings.METRICS_PORT):
        return metrics(environ, start_response)
    if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
        stream = environ["wsgi.input"]
        body = stream.read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
        drain(stream)
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
    return django_application(environ, start_response)
