# docker build --build-arg VERSION=1.2.0 --build-arg REVISION=$(git rev-parse HEAD) -t latchkey:1.2.0 .
FROM python:3.13-slim AS wheels
WORKDIR /wheels
COPY requirements.txt .
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --require-hashes --wheel-dir /wheels --requirement requirements.txt

FROM python:3.13-slim
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
# psql, for `manage.py dbshell`; not pinned, to get the distribution's security fixes.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql-client \
    && rm -rf /var/lib/apt/lists/*
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels --requirement /wheels/requirements.txt \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin latchkey
# .dockerignore is an allow-list, so that no file with secrets is copied by accident.
COPY . .
# The root may be read-only, so compiled and static files are written now. /tmp has to be writable.
RUN python -m compileall -q . && python manage.py collectstatic --noinput --verbosity 0
ARG VERSION="" REVISION=""
ENV LATCHKEY_VERSION=$VERSION LATCHKEY_REVISION=$REVISION
LABEL org.opencontainers.image.version=$VERSION org.opencontainers.image.revision=$REVISION
USER 10001:10001
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --start-interval=1s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ.get(\"PORT\") or 3000}/health/live', timeout=2)"]
CMD ["gunicorn"]
