"""The two compared services, their rows and their requests."""

import shutil
from typing import Any

from bench.world import BIN as PROGRAMS
from bench.world import CONNECTIONS, Endpoint, Postgres, Service
from config.management.commands.generatesecrets import NAMES, good_secret
from config.settings import CORES
from tests.rig.redis import Redis

WORKERS = min(2, CORES) if shutil.which("redis-server") else 1
THREADS = 8
PASSWORD = "a sunny day in May"

OUR_CLIENTS = """
import json
from datetime import timedelta
from django.contrib.auth.hashers import make_password
from django.utils import timezone
from accounts.models import Session, User
from accounts.serializers.auth import TokenPairSerializer
clients, now, password = [], timezone.now(), make_password(%(password)r)
for n in range(%(clients)d):
    user, _ = User.objects.get_or_create(
        username=f"bench{n}", defaults={"email": f"bench{n}@example.com", "password": password})
    for _ in range(5):
        session = Session.objects.create(
            user=user, user_agent="bench", device="bench", ip_address="127.0.0.1",
            created_at=now, last_used_at=now, expires_at=now + timedelta(days=7))
    session.now = now
    pair = TokenPairSerializer(session).data
    clients.append({"access": pair["access_token"], "refresh": pair["refresh_token"],
                    "identity": user.username})
print(json.dumps(clients))
"""
STOCK_CLIENTS = """
import json
from django.contrib.auth.models import User
from rest_framework_simplejwt.tokens import RefreshToken
clients = []
for n in range(%(clients)d):
    user, _ = User.objects.get_or_create(username=f"bench{n}", email=f"bench{n}@example.com")
    refresh = RefreshToken.for_user(user)
    clients.append({"access": str(refresh.access_token), "refresh": str(refresh)})
print(json.dumps(clients))
"""
STOCK_USERS = """
    INSERT INTO auth_user (username, email, first_name, last_name, password, is_superuser, is_staff,
                           is_active, date_joined)
    SELECT 'demo' || n, 'demo' || n || '@example.com', 'Demo ' || n, '', '!', false, false, true, now()
      FROM generate_series(1, 100) n
"""
STOCK_PRODUCTS = """
    INSERT INTO stock_product (owner_id, title, description, amount, created_at, updated_at)
    SELECT owner.id, 'Brass Lamp ' || n,
           'A brass lamp, one of many, marked ' || md5(n::text) || '.', n %% 1000, moment, moment
      FROM generate_series(1, %s) n
      JOIN (SELECT id, row_number() OVER (ORDER BY id) - 1 AS place FROM auth_user
             WHERE username LIKE 'demo%%') owner ON owner.place = n %% 100,
           LATERAL (SELECT now() - random() * interval '90 days' AS moment) m
"""


def ours(postgres: Postgres, redis: Redis | None, database: str = "latchkey") -> Service:
    environment = {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        **{name: good_secret() for name in NAMES},
        "DATABASE_URL": postgres.create(database),
        "ALLOWED_HOSTS": "localhost,127.0.0.1",
        "CACHE_URL": redis.url if redis else "",
        "DEBUG": "false",
        "EMAIL_URL": "none",
        "WEB_CONCURRENCY": str(WORKERS),
        "WEB_THREADS": str(THREADS),
        "HASHING_PLACES": "1",
        "ACCESS_TOKEN_MINUTES": "1440",  # Longer than filling a large database.
        # The limits count requests but never reject them.
        "AUTH_RATE_LIMIT": "100000000/m",
        "AUTH_READ_LIMIT": "100000000/m",
        "LOGIN_FAILURE_LIMIT": "100000000/m",
        "SESSION_LIMIT": "0",
    }
    service = Service("Latchkey", database, environment, [str(PROGRAMS / "gunicorn")])
    service.manage("migrate")
    return service


def stock(postgres: Postgres) -> Service:
    environment = {
        "DJANGO_SETTINGS_MODULE": "bench.stock.settings",
        "SECRET": good_secret(),
        "DATABASE_URL": postgres.create("stock"),
    }
    command = [str(PROGRAMS / "gunicorn"), "--config", "/dev/null", "bench.stock.wsgi"]
    command += ["--worker-class", "gthread", "--workers", str(WORKERS), "--threads", str(THREADS)]
    command += ["--keep-alive", "5", "--no-control-socket"]
    service = Service("stock", "stock", environment, command)
    service.run_script(
        "from django.core.management import call_command\n"
        "call_command('migrate', verbosity=0)\n"
        "call_command('migrate', run_syncdb=True, verbosity=0)"
    )
    postgres.execute(STOCK_USERS, dbname="stock")
    return service


def fill_ours(postgres: Postgres, service: Service, **rows: int) -> None:
    """Add rows with seeddemo's options, and create the clients' sessions once."""
    options = {"users": 100, "sessions": 0, "events": 0, "products": 0, **rows}
    service.manage("seeddemo", "--force", *(f"--{name}={count}" for name, count in options.items()))
    if not service.clients:
        variables = {"clients": CONNECTIONS, "password": PASSWORD}
        service.clients = service.run_script(OUR_CLIENTS % variables)
    postgres.settle(service.database)


def fill_stock(postgres: Postgres, service: Service, products: int) -> None:
    postgres.execute(STOCK_PRODUCTS, [products], dbname=service.database)
    if not service.clients:
        service.clients = service.run_script(STOCK_CLIENTS % {"clients": CONNECTIONS})
    postgres.settle(service.database)


def get(name: str, path: str) -> Endpoint:
    return Endpoint(name, lambda service, who: ("GET", f"/api/v1{path}", None))


def create(slash: str) -> Endpoint:
    body = {"title": "Brass lamp", "description": "Warm light.", "amount": 3}
    return Endpoint("create a product", lambda *_: ("POST", f"/api/v1/product{slash}", body), 201)


def refresh(slash: str, names: tuple[str, str]) -> Endpoint:
    sent, taken = names

    def request(service: Service, who: dict[str, Any]) -> tuple[str, str, Any]:
        return "POST", f"/api/v1/auth/refresh{slash}", {sent: who["refresh"]}

    def take(who: dict[str, Any], response: dict[str, Any]) -> None:
        who["refresh"] = response[taken]

    return Endpoint("refresh", request, take=take)


def login() -> Endpoint:
    def request(service: Service, who: dict[str, Any]) -> tuple[str, str, Any]:
        return "POST", "/api/v1/auth/login", {"identity": who["identity"], "password": PASSWORD}

    return Endpoint("login", request)
