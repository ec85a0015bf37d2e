"""Django's PostgreSQL backend, with a server that starts at the first connection."""

from collections.abc import Iterable
from typing import Any

from django.db.backends.postgresql import client

from ops.database import embedded
from ops.database.postgres import base


def with_server(settings_dict: dict[str, Any]) -> dict[str, Any]:
    """Start the server and return the settings with its socket directory and password."""
    server = embedded.start()
    return {**settings_dict, "HOST": server.socket_directory, "PASSWORD": server.password}


class DatabaseClient(client.DatabaseClient):
    @classmethod
    def settings_to_cmd_args_env(
        cls, settings_dict: dict[str, Any], parameters: Iterable[str]
    ) -> tuple[list[str], dict[str, str] | None]:
        args, env = super().settings_to_cmd_args_env(with_server(settings_dict), parameters)
        return [str(embedded.programs() / "psql"), *args[1:]], env


class DatabaseWrapper(base.DatabaseWrapper):
    client_class = DatabaseClient

    def get_connection_params(self) -> dict[str, Any]:
        self.settings_dict |= with_server(self.settings_dict)
        return super().get_connection_params()
