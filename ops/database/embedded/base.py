"""Django's PostgreSQL backend, with a server that starts at the first connection."""

from collections.abc import Iterable
from typing import Any

from django.db.backends.postgresql import client

from ops.database import embedded
from ops.database.postgres import base


def located(settings_dict: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with the place and the password of the server, which runs then."""
    server = embedded.start()
    place = {"HOST": server.socket_directory, "PASSWORD": server.password}
    return {**settings_dict, **place}


class DatabaseClient(client.DatabaseClient):
    @classmethod
    def settings_to_cmd_args_env(
        cls, settings_dict: dict[str, Any], parameters: Iterable[str]
    ) -> tuple[list[str], dict[str, str] | None]:
        args, env = super().settings_to_cmd_args_env(located(settings_dict), parameters)
        return [str(embedded.programs() / "psql"), *args[1:]], env


class DatabaseWrapper(base.DatabaseWrapper):
    client_class = DatabaseClient

    def get_connection_params(self) -> dict[str, Any]:
        self.settings_dict |= located(self.settings_dict)
        return super().get_connection_params()
