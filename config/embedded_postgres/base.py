"""Django's PostgreSQL backend, with a server that starts at the first connection."""

from collections.abc import Iterable
from typing import Any

from django.db.backends.postgresql import client

from config import embedded_postgres
from config.postgres import base


class DatabaseClient(client.DatabaseClient):
    @classmethod
    def settings_to_cmd_args_env(
        cls, settings_dict: dict[str, Any], parameters: Iterable[str]
    ) -> tuple[list[str], dict[str, str] | None]:
        located = {**settings_dict, "HOST": embedded_postgres.start()}
        args, env = super().settings_to_cmd_args_env(located, parameters)
        return [str(embedded_postgres.binaries() / "psql"), *args[1:]], env


class DatabaseWrapper(base.DatabaseWrapper):
    client_class = DatabaseClient

    def get_connection_params(self) -> dict[str, Any]:
        self.settings_dict["HOST"] = embedded_postgres.start()
        return super().get_connection_params()
