"""Each secret is rotated on two instances while clients send requests."""

import contextlib
import functools
import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from config.management.commands.generatesecrets import NAMES, good_secret
from conftest import API
from tests.faults.conftest import Figure
from tests.rig.client import Client
from tests.rig.gunicorn import NO_LIMITS, serve
from tests.rig.load import Load
from tests.rig.postgres import Postgres
from tests.rig.redis import Redis, needs_redis

CLIENTS = 6
# A list that is long enough for cursors, which SECRET signs.
ARTICLES = """
    INSERT INTO articles_article (title, description, amount, created_at, updated_at, owner_id)
    SELECT 'Lamp ' || n, '', n, now(), now(), (SELECT min(id) FROM accounts_user)
      FROM generate_series(1, 10020) AS n
"""


class Fleet:
    """Two instances; a client uses either, and the other one if it is stopped."""

    def __init__(self, stack: contextlib.ExitStack, directory: Path, **variables: str) -> None:
        self.stack = stack
        self.logs = (directory / str(n) for n in itertools.count())
        self.variables = variables
        self.running = self.start()

    def start(self) -> list[tuple[int, contextlib.ExitStack]]:
        def serve_one(log: Path) -> tuple[int, contextlib.ExitStack]:
            own = contextlib.ExitStack()
            return own.enter_context(serve(log, **NO_LIMITS, **self.variables)).port, own

        with ThreadPoolExecutor(2) as pool:
            started = list(pool.map(serve_one, [next(self.logs), next(self.logs)]))
        for _, own in started:
            self.stack.enter_context(own)
        return started

    def roll(self, **variables: str) -> None:
        """Replace the instances; the new ones start before the old ones stop."""
        self.variables |= variables
        for place, new in enumerate(self.start()):
            (_, old), self.running[place] = self.running[place], new
            old.close()

    def request(self, client: Client, method: str, path: str, body: object = None) -> int:
        """Return the status; try the other instance if the connection is rejected."""
        for port, _ in random.sample(self.running, 2):
            one_of_them = Client(port)
            one_of_them.access = "" if body else client.access
            response = one_of_them.request(method, path, body)
            if response.status:
                break
        if body:
            client.take(response)
        return response.status

    def use(self, client: Client, path: str) -> list[int]:
        spent = {"refresh_token": client.refresh_token}
        return [
            self.request(client, "GET", f"{API}/users/me"),
            self.request(client, "GET", path),
            self.request(client, "POST", f"{API}/auth/refresh", spent),
        ]


@needs_redis
def test_no_session_is_lost_while_each_secret_is_changed(
    postgres: Postgres, redis: Redis, tmp_path: Path, figure: Figure
) -> None:
    old, new = ({name: good_secret() for name in NAMES} for _ in range(2))
    with contextlib.ExitStack() as stack:
        urls = {"DATABASE_URL": postgres.url, "CACHE_URL": redis.url}
        fleet = Fleet(stack, tmp_path, **urls, **old)
        clients = [Client(fleet.running[0][0]).sign_in() for _ in range(CLIENTS)]
        postgres.execute(ARTICLES, dbname="latchkey", user="latchkey")
        following = clients[0].get(f"{API}/articles?page=1000").json["next"]
        path = f"{API}{following.partition(API)[2]}"
        before = Client(0)
        before.access = clients[0].access

        calls = [functools.partial(fleet.use, client, path) for client in clients]
        with Load(*calls, pause=0.1) as load:
            # Every instance accepts a new secret before any instance signs with it.
            fleet.roll(SECRET_FALLBACKS=new["SECRET"])
            for name, following in itertools.zip_longest(NAMES, NAMES[1:]):
                known = {f"{following}_FALLBACKS": new[following]} if following else {}
                fleet.roll(**{name: new[name], f"{name}_FALLBACKS": old[name]}, **known)
        responses = [status for statuses in load.results for status in statuses]
        fleet.roll(**dict.fromkeys((f"{name}_FALLBACKS" for name in NAMES), ""))
        alive = sum(fleet.request(client, "GET", f"{API}/users/me") == 200 for client in clients)
        forgotten = fleet.request(before, "GET", f"{API}/users/me")
    failed = len(responses) - responses.count(200)
    figure(
        "Three secrets changed in turn on two instances: responses that failed; sessions alive; "
        "a token of before, once the old secrets are gone",
        demanded=f"0; {CLIENTS}; 401",
        measured=f"{failed} of {len(responses)}; {alive}; {forgotten}",
        met=not failed and (alive, forgotten) == (CLIENTS, 401),
    )
    assert len(responses) > 100
