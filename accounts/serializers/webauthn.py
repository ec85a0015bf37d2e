"""The JSON forms of WebAuthn Level 3, as the OpenAPI document describes them."""

from drf_spectacular.utils import extend_schema_serializer
from rest_framework.serializers import (
    BooleanField,
    CharField,
    IntegerField,
    JSONField,
    ListField,
)

from api.serializers import Serializer

BASE64URL = "In base64url, without padding."


class DescriptorSerializer(Serializer):
    type = CharField()
    id = CharField(help_text=BASE64URL)
    transports = ListField(child=CharField())


@extend_schema_serializer(component_name="PublicKeyCredentialRequestOptionsJSON")
class RequestOptionsSerializer(Serializer):
    challenge = CharField(help_text=BASE64URL)
    timeout = IntegerField(help_text="Milliseconds.")
    rpId = CharField()
    userVerification = CharField()
    allowCredentials = DescriptorSerializer(many=True, required=False)


class RelyingPartySerializer(Serializer):
    id = CharField()
    name = CharField()


class CredentialUserSerializer(Serializer):
    id = CharField(help_text=f"The user handle. {BASE64URL}")
    name = CharField()
    displayName = CharField()


class CredentialParametersSerializer(Serializer):
    type = CharField()
    alg = IntegerField(help_text="A COSE algorithm.")


class AuthenticatorSelectionSerializer(Serializer):
    residentKey = CharField()
    requireResidentKey = BooleanField()
    userVerification = CharField()


@extend_schema_serializer(component_name="PublicKeyCredentialCreationOptionsJSON")
class CreationOptionsSerializer(Serializer):
    rp = RelyingPartySerializer()
    user = CredentialUserSerializer()
    challenge = CharField(help_text=BASE64URL)
    pubKeyCredParams = CredentialParametersSerializer(many=True)
    timeout = IntegerField(help_text="Milliseconds.")
    excludeCredentials = DescriptorSerializer(many=True)
    authenticatorSelection = AuthenticatorSelectionSerializer()
    attestation = CharField()


class CredentialSerializer(Serializer):
    id = CharField(help_text=BASE64URL)
    rawId = CharField(help_text=BASE64URL)
    type = CharField()
    authenticatorAttachment = CharField(required=False, allow_null=True)
    clientExtensionResults = JSONField(required=False)


class AssertionResponseSerializer(Serializer):
    clientDataJSON = CharField(help_text=BASE64URL)
    authenticatorData = CharField(help_text=BASE64URL)
    signature = CharField(help_text=BASE64URL)
    userHandle = CharField(help_text=BASE64URL, required=False, allow_null=True)


@extend_schema_serializer(component_name="AuthenticationCredential")
class AssertionSerializer(CredentialSerializer):
    response = AssertionResponseSerializer()


class AttestationResponseSerializer(Serializer):
    clientDataJSON = CharField(help_text=BASE64URL)
    attestationObject = CharField(help_text=BASE64URL)
    transports = ListField(child=CharField(), required=False)


@extend_schema_serializer(component_name="RegistrationCredential")
class AttestationSerializer(CredentialSerializer):
    response = AttestationResponseSerializer()
