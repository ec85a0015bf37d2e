from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.hashers import make_password
from django.core.management.base import BaseCommand
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
           CASE WHEN n %% 3 = 0 THEN moment + interval '1 day' END,
           CASE WHEN n %% 3 = 0 THEN 'logout' ELSE '' END
      FROM generate_series(%(first)s, %(last)s) n
      JOIN (SELECT id, row_number() OVER (ORDER BY id) - 1 AS place, count(*) OVER () AS count
              FROM accounts_user WHERE username LIKE 'demo%%') owner ON owner.place = n %% count,
           LATERAL (SELECT now() - random() * interval '20 days' AS moment,
                           (ARRAY['Firefox on Linux', 'Chrome on Windows', 'Safari on Mac OS X',
                                  'Mobile Safari on iOS', 'curl'])[1 + n %% 5] AS device) m
"""
PRODUCTS = """
    INSERT INTO catalog_product (owner_id, title, description, amount, created_at, updated_at)
    SELECT owner.id, initcap(adjective || ' ' || noun || ' ' || n),
           'A ' || adjective || ' ' || noun || ', one of many, marked ' || md5(n::text) || '.',
           n %% 1000, moment, moment
      FROM generate_series(%(first)s, %(last)s) n
      JOIN (SELECT id, row_number() OVER (ORDER BY id) - 1 AS place, count(*) OVER () AS count
              FROM accounts_user WHERE username LIKE 'demo%%') owner ON owner.place = n %% count,
           LATERAL (SELECT now() - random() * interval '90 days' AS moment,
                           (ARRAY['brass', 'oak', 'paper', 'linen', 'glass', 'copper', 'walnut'])
                               [1 + n %% 7] AS adjective,
                           (ARRAY['lamp', 'table', 'kettle', 'chair', 'mirror', 'clock', 'basket',
                                  'shelf', 'vase', 'candle', 'blanket'])[1 + n %% 11] AS noun) m
"""


class Command(BaseCommand):
    help = (
        "Add users, sessions and products to look at. The users are demo1, demo2, …; their "
        f'password is "{PASSWORD}". Run it as often as you like: users are kept, the rest is added.'
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--users", type=int, default=20, help="how many (default 20)")
        parser.add_argument("--sessions", type=int, default=100, help="how many (default 100)")
        parser.add_argument("--products", type=int, default=500, help="how many (default 500)")

    def handle(self, *args: Any, users: int, sessions: int, products: int, **options: Any) -> None:
        # One hash for all: at cost 14 each would take a second.
        password = make_password(PASSWORD)
        self.insert("users", USERS, users, password=password)
        self.insert("sessions", SESSIONS, sessions)
        self.insert("products", PRODUCTS, products)
        self.stdout.write(f"Added up to {users} users, {sessions} sessions, {products} products.")

    def insert(self, name: str, statement: str, count: int, **parameters: Any) -> None:
        with connection.cursor() as cursor, tqdm(total=count, desc=name, disable=None) as progress:
            for first in range(1, count + 1, BATCH):
                last = min(count, first + BATCH - 1)
                cursor.execute(statement, {"first": first, "last": last, **parameters})
                progress.update(last - first + 1)
