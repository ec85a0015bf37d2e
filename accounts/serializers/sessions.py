"""Sessions and events, as lists show them."""

from rest_framework import serializers

from accounts.models import Event, Session
from api.serializers import ModelSerializer


class RevokedSessionsSerializer(serializers.Serializer[Session]):
    revoked = serializers.IntegerField(help_text="How many sessions were ended.")


class SessionSerializer(ModelSerializer):
    current = serializers.SerializerMethodField(help_text="Whether it is the caller's session.")

    class Meta:
        model = Session
        fields = ["id", "current", "user_agent", "device", "ip_address"]
        fields += ["created_at", "last_used_at", "expires_at", "authenticated_at", "methods"]

    def get_current(self, session: Session) -> bool:
        return bool(session == self.context["request"].auth)


class EventSerializer(ModelSerializer):
    """What happened, as the user may know it: not from where somebody else did it."""

    event = serializers.ChoiceField(Event.Kind.choices, source="kind")
    session = serializers.UUIDField(source="session_id", allow_null=True)
    device = serializers.SerializerMethodField(help_text="Of the session, or of who asked.")
    ip_address = serializers.SerializerMethodField()
    new_device = serializers.BooleanField(source="is_new_device")

    class Meta:
        model = Event
        fields = ["id", "event", "detail", "created_at", "session", "device", "ip_address"]
        fields += ["new_device"]

    def get_device(self, event: Event) -> str:
        return event.device if event.is_own or event.session_id else ""

    def get_ip_address(self, event: Event) -> str | None:
        return event.ip_address if event.is_own else None
