"""What an export has of an account, beyond what lists show."""

from accounts.models import OutgoingEmail, Session
from accounts.serializers.users import UserSerializer
from api.serializers import ModelSerializer


class ExportedAccountSerializer(UserSerializer):
    class Meta(UserSerializer.Meta):
        fields = [*UserSerializer.Meta.fields, "email_verified_at", "pending_email"]
        fields += ["password_changed_at", "last_login", "is_active", "is_staff"]


class ExportedSessionSerializer(ModelSerializer):
    class Meta:
        model = Session
        fields = ["id", "user_agent", "device", "ip_address", "methods", "created_at"]
        fields += ["authenticated_at", "last_used_at", "expires_at", "ended_at", "end_reason"]


class ExportedEmailSerializer(ModelSerializer):
    class Meta:
        model = OutgoingEmail
        fields = ["kind", "address", "created_at", "sent_at", "failed_at"]
