"""Serializers with cached fields have the same output as DRF's."""

import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from django.utils import timezone
from rest_framework import serializers as drf
from rest_framework.renderers import JSONRenderer

from accounts.models import User
from api.serializers import ModelSerializer, Serializer

NOW = timezone.now()
ROW = SimpleNamespace(
    id=7,
    big=2**40,
    text="Lamp",
    number=3,
    flag=True,
    at=NOW,
    key=uuid.UUID(int=5),
    nothing=None,
    method=lambda: "called",
    owner=SimpleNamespace(username="alice"),
)


class Fields:
    """All types of fields, for DRF's serializer and for this one."""

    id = drf.IntegerField()
    big = drf.BigIntegerField()
    big_text = drf.BigIntegerField(source="big", coerce_to_string=True)
    text = drf.CharField()
    number = drf.CharField(source="id")
    flag = drf.BooleanField()
    at = drf.DateTimeField()
    year = drf.DateTimeField(source="at", format="%Y")
    key = drf.UUIDField()
    short_key = drf.UUIDField(source="key", format="hex")
    nothing = drf.CharField()
    method = drf.CharField()
    owner = drf.CharField(source="owner.username")
    whole = drf.SerializerMethodField()
    choice = drf.ChoiceField(["Lamp"], source="text")
    default = drf.CharField(source="missing", default="none")
    skipped = drf.CharField(source="missing", required=False)
    secret = drf.CharField(write_only=True)

    def get_whole(self, row: Any) -> str:
        return f"{row.text} of {self.context['who']}"


def serializer_of(base: type[Any], *names: str) -> type[Any]:
    members = {name: vars(Fields)[name] for name in (*names, "get_whole")}
    return type("Example", (base,), members)


FIELDS = [name for name, field in vars(Fields).items() if isinstance(field, drf.Field)]


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_is_represented_as_drf_does(name: str) -> None:
    context = {"who": "alice"}

    represented = serializer_of(Serializer, name)(ROW, context=context).data

    assert render(represented) == render(
        serializer_of(drf.Serializer, name)(ROW, context=context).data
    )


def render(data: Any) -> Any:

    return JSONRenderer().render(data)


def test_a_mapping_is_represented_as_drf_does() -> None:
    row = {"id": 7, "text": "Lamp"}

    assert serializer_of(Serializer, "id", "text")(row).data == row


def test_a_value_that_is_missing_is_drfs_own_error() -> None:
    with pytest.raises(AttributeError, match="Got AttributeError when attempting to get"):
        _ = serializer_of(Serializer, "text")(SimpleNamespace()).data


def test_fields_of_a_model_are_built_once_and_not_shared() -> None:
    class UserExample(ModelSerializer):
        class Meta:
            model = User
            fields = ["id", "username", "date_joined"]

    user = User(pk=7, username="alice", date_joined=NOW)
    first, second = UserExample(user), UserExample(user)

    assert first.data == {"id": 7, "username": "alice", "date_joined": NOW}
    assert first.fields["username"] is not second.fields["username"]
    first.fields["username"].max_length = 1
    assert second.fields["username"].max_length == 50
