"""Each secret is changed in turn, on two instances, while clients go on."""

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
from tests.rig.gunicorn import LIFTED, serve
from tests.rig.load import Load
from tests.rig.postgres import Postgres
from tests.rig.redis import Redis, needs_redis

CLIENTS = 6
# A list that is longer than its pages reach, so that its cursors, which SECRET signs, are used.
PRODUCTS = """
    INSERT INTO catalog_product (title, description, amount, created_at, updated_at, owner_id)
    SELECT 'Lamp ' || n, '', n, now(), now(), (SELECT min(id) FROM accounts_user)
      FROM generate_series(1, 10020) AS n
"""


class Fleet:
    """Two instances; a client asks either, and the other one where that is gone."""

    def __init__(self, stack: contextlib.ExitStack, directory: Path, **variables: str) -> None:
        self.stack = stack
        self.logs = (directory / str(n) for n in itertools.count())
        self.variables = variables
        self.running = self.start()

    def start(self) -> list[tuple[int, contextlib.ExitStack]]:
        def serve_one(log: Path) -> tuple[int, contextlib.ExitStack]:
            own = contextlib.ExitStack()
            return own.enter_context(serve(log, **LIFTED, **self.variables)).port, own

        with ThreadPoolExecutor(2) as pool:
            started = list(pool.map(serve_one, [next(self.logs), next(self.logs)]))
        for _, own in started:
            self.stack.enter_context(own)
        return started

    def roll(self, **variables: str) -> None:
        """Replace one instance after the other: the new ones serve before the old ones go."""
        self.variables |= variables
        for place, new in enumerate(self.start()):
            (_, old), self.running[place] = self.running[place], new
            old.close()

    def ask(self, client: Client, method: str, path: str, body: object = None) -> int:
        """Return the status; a connection that is refused was heard by nobody."""
        for port, _ in random.sample(self.running, 2):
            one_of_them = Client(port)
            one_of_them.access = "" if body else client.access
            answer = one_of_them.ask(method, path, body)
            if answer.status:
                break
        if body:
            client.take(answer)
        return answer.status

    def go_on(self, client: Client, path: str) -> list[int]:
        spent = {"refresh_token": client.refresh_token}
        return [
            self.ask(client, "GET", f"{API}/users/me"),
            self.ask(client, "GET", path),
            self.ask(client, "POST", f"{API}/auth/refresh", spent),
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
        postgres.execute(PRODUCTS, dbname="latchkey", user="latchkey")
        following = clients[0].get(f"{API}/product?page=1000").json["next"]
        path = f"{API}{following.partition(API)[2]}"
        before = Client(0)
        before.access = clients[0].access

        calls = [functools.partial(fleet.go_on, client, path) for client in clients]
        with Load(*calls, pause=0.02) as load:
            # Every instance comes to know a new secret before any signs with it.
            fleet.roll(SECRET_FALLBACKS=new["SECRET"])
            for name, following in itertools.zip_longest(NAMES, NAMES[1:]):
                known = {f"{following}_FALLBACKS": new[following]} if following else {}
                fleet.roll(**{name: new[name], f"{name}_FALLBACKS": old[name]}, **known)
        answers = [status for statuses in load.results for status in statuses]
        fleet.roll(**dict.fromkeys((f"{name}_FALLBACKS" for name in NAMES), ""))
        alive = sum(fleet.ask(client, "GET", f"{API}/users/me") == 200 for client in clients)
        forgotten = fleet.ask(before, "GET", f"{API}/users/me")
    failed = len(answers) - answers.count(200)
    figure(
        "Three secrets changed in turn on two instances: answers that failed; sessions alive; "
        "a token of before, once the old secrets are gone",
        demanded=f"0; {CLIENTS}; 401",
        measured=f"{failed} of {len(answers)}; {alive}; {forgotten}",
        met=not failed and (alive, forgotten) == (CLIENTS, 401),
    )
    assert len(answers) > 100
