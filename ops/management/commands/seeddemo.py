from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from tqdm import tqdm

PASSWORD = "a sunny day in May"  # noqa: S105 - for everyone to read
BATCH = 10_000

USERS = """
    INSERT INTO accounts_user (username, email, names, password, is_superuser, is_staff, is_active,
                               date_joined, password_changed_at)
    SELECT 'demo' || n, 'demo' || n || '@example.com', 'Demo ' || n, %(password)s,
           false, false, true, moment, moment
      FROM generate_series(%(first)s, %(last)s) n,
           LATERAL (SELECT now() - random() * interval '90 days' AS moment) m
        ON CONFLICT DO NOTHING
"""
SESSIONS = """
    INSERT INTO accounts_session (id, user_id, token_id, user_agent, device, ip_address, created_at,
                                  last_used_at, expires_at, ended_at, end_reason)
    SELECT gen_random_uuid(), owner.id, gen_random_uuid(), 'seeddemo', device,
           ('198.51.' || n / 250 %% 250 || '.' || n %% 250)::inet, moment, moment,
           moment + interval '7 days',
           CASE WHEN n %% 3 = 0 THEN least(moment + interval '1 day', now()) END,
           CASE WHEN n %% 3 = 0 THEN 'logout' ELSE '' END
      FROM generate_series(%(first)s, %(last)s) n
     CROSS JOIN (SELECT count(*) AS count FROM accounts_user WHERE username LIKE 'demo%%') demo
      JOIN (SELECT id, row_number() OVER (ORDER BY id) - 1 AS place
              FROM accounts_user WHERE username LIKE 'demo%%') owner ON owner.place = n %% count,
           LATERAL (SELECT now() - random() * interval '20 days' AS moment,
                           (ARRAY['Firefox on Linux', 'Chrome on Windows', 'Safari on Mac OS X',
                                  'Mobile Safari on iOS', 'curl'])[1 + n %% 5] AS device) m
"""
EVENTS = """
    INSERT INTO accounts_event (created_at, kind, detail, user_id, username, actor, ip_address,
                                device, is_new_device, request_id)
    SELECT now() - random() * interval '30 days', kind,
           CASE kind WHEN 'refused' THEN 'wrong password' WHEN 'limit_reached' THEN 'auth'
                     WHEN 'signed_out' THEN 'logout' ELSE '' END,
           owner.id, owner.username, '',
           ('198.51.' || n / 250 %% 250 || '.' || n %% 250)::inet,
           (ARRAY['Firefox on Linux', 'Chrome on Windows', 'Safari on Mac OS X',
                  'Mobile Safari on iOS', 'curl'])[1 + n %% 5],
           kind = 'signed_in' AND n %% 7 = 0, md5(n::text)
      FROM (SELECT n, CASE WHEN die < 0.6 THEN 'signed_in' WHEN die < 0.75 THEN 'refused'
                           WHEN die < 0.95 THEN 'signed_out' WHEN die < 0.97 THEN 'limit_reached'
                           WHEN die < 0.99 THEN 'account_created' ELSE 'replayed' END AS kind
              FROM (SELECT n, random() AS die FROM generate_series(%(first)s, %(last)s) n) d) e
     CROSS JOIN (SELECT count(*) AS count FROM accounts_user WHERE username LIKE 'demo%%') demo
      JOIN (SELECT id, username, row_number() OVER (ORDER BY id) - 1 AS place
              FROM accounts_user WHERE username LIKE 'demo%%') owner ON owner.place = n %% count
"""
PRODUCTS = """
    INSERT INTO catalog_product (owner_id, title, description, amount, created_at, updated_at)
    SELECT owner.id, initcap(adjective || ' ' || noun || ' ' || n),
           'A ' || adjective || ' ' || noun || ', one of many, marked ' || md5(n::text) || '.',
           n %% 1000, moment, moment
      FROM generate_series(%(first)s, %(last)s) n
     CROSS JOIN (SELECT count(*) AS count FROM accounts_user WHERE username LIKE 'demo%%') demo
      JOIN (SELECT id, row_number() OVER (ORDER BY id) - 1 AS place
              FROM accounts_user WHERE username LIKE 'demo%%') owner ON owner.place = n %% count,
           LATERAL (SELECT now() - random() * interval '90 days' AS moment,
                           (ARRAY['brass', 'oak', 'paper', 'linen', 'glass', 'copper', 'walnut'])
                               [1 + n %% 7] AS adjective,
                           (ARRAY['lamp', 'table', 'kettle', 'chair', 'mirror', 'clock', 'basket',
                                  'shelf', 'vase', 'candle', 'blanket'])[1 + n %% 11] AS noun) m
"""
TABLES = {"sessions": SESSIONS, "events": EVENTS, "products": PRODUCTS}


class Command(BaseCommand):
    help = (
        "Add users, sessions, events and products to look at. The users are demo1, demo2, …; their "
        f'password is "{PASSWORD}". Each run keeps the users and adds the rest. '
        "Without DEBUG it needs --force, because anyone can sign in with that password."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--users", type=int, default=20, help="how many (default 20)")
        parser.add_argument("--sessions", type=int, default=100, help="how many (default 100)")
        parser.add_argument("--events", type=int, default=2000, help="how many (default 2000)")
        parser.add_argument("--products", type=int, default=500, help="how many (default 500)")
        parser.add_argument("--force", action="store_true", help="run without DEBUG too")

    def handle(self, *args: Any, users: int, force: bool, **options: Any) -> None:
        if not (settings.DEBUG or force):
            raise CommandError(
                "seeddemo creates accounts with a password that everyone can read, so it needs "
                "DEBUG or --force."
            )
        # One hash for all: at cost 14 each would take a second.
        password = make_password(PASSWORD)
        self.insert("users", USERS, users, password=password)
        for name, statement in TABLES.items():
            self.insert(name, statement, options[name])
        added = ", ".join(f"{options[name]} {name}" for name in TABLES)
        self.stdout.write(f"Added up to {users} users, {added}.")

    def insert(self, name: str, statement: str, count: int, **parameters: Any) -> None:
        with connection.cursor() as cursor, tqdm(total=count, desc=name, disable=None) as progress:
            for first in range(1, count + 1, BATCH):
                last = min(count, first + BATCH - 1)
                cursor.execute(statement, {"first": first, "last": last, **parameters})
                progress.update(last - first + 1)
