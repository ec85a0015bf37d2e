# syntax=docker/dockerfile:1
FROM python:3.13-slim AS wheels
WORKDIR /wheels
COPY requirements.txt .
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --wheel-dir /wheels --requirement requirements.txt

FROM python:3.13-slim
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels --requirement /wheels/requirements.txt \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin latchkey
COPY manage.py gunicorn.conf.py ./
COPY config config
COPY accounts accounts
COPY catalog catalog
COPY health health
RUN python manage.py collectstatic --noinput --verbosity 0
USER 10001
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ.get(\"PORT\") or 3000}/health/live', timeout=2)"]
CMD ["gunicorn"]
