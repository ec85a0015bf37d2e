"""Passkeys: the credentials that browsers send, in the JSON forms of WebAuthn Level 3."""

from rest_framework import serializers

from api.serializers import Serializer

BASE64URL = "In base64url, without padding."


class RelyingPartySerializer(Serializer):
    id = serializers.CharField()
    name = serializers.CharField()


class PasskeyUserSerializer(Serializer):
    id = serializers.CharField(help_text=BASE64URL)
    name = serializers.CharField()
    displayName = serializers.CharField()  # noqa: N815 - the name that browsers expect


class PasskeyAlgorithmSerializer(Serializer):
    type = serializers.ChoiceField(["public-key"])
    alg = serializers.IntegerField()


class PasskeyDescriptorSerializer(Serializer):
    type = serializers.ChoiceField(["public-key"])
    id = serializers.CharField(help_text=BASE64URL)
    transports = serializers.ListField(child=serializers.CharField())
