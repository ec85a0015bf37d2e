# docker build --build-arg VERSION=1.2.0 --build-arg REVISION=$(git rev-parse HEAD) -t latchkey:1.2.0 .
FROM python:3.13-slim AS wheels
WORKDIR /wheels
COPY requirements.txt .
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --require-hashes --wheel-dir /wheels --requirement requirements.txt

FROM python:3.13-slim
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels --requirement /wheels/requirements.txt \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin latchkey
# .dockerignore is an allow-list, so that no file with secrets is copied by accident.
COPY . .
# The root may be read-only, so compiled files are written now. /tmp has to be writable. Static files are
# served from the packages.
RUN python -m compileall -q .
ARG VERSION="" REVISION=""
ENV LATCHKEY_VERSION=$VERSION LATCHKEY_REVISION=$REVISION
LABEL org.opencontainers.image.version=$VERSION org.opencontainers.image.revision=$REVISION
USER 10001:10001
EXPOSE 3000
CMD ["gunicorn"]
