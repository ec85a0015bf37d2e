"""Uploads as DRF and Django document them, and a download by the owner only."""

from django.http import FileResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import generics, permissions, serializers, viewsets
from rest_framework.decorators import api_view, parser_classes, permission_classes
from rest_framework.exceptions import ValidationError
from rest_framework.parsers import FileUploadParser, MultiPartParser
from rest_framework.response import Response
from rest_framework.views import APIView

from api.uploads import MIB, upload_limit
from tests.service.guest.models import Order, Photo

# The first bytes decide: a client chooses the name and the media type.
KINDS = {b"\x89PNG\r\n\x1a\n": ("png", "image/png"), b"\xff\xd8\xff": ("jpg", "image/jpeg")}


def kind_of(file):
    """Return the suffix and the media type of an image; None for any other file."""
    start = file.read(8)
    file.seek(0)
    return next((KINDS[first] for first in KINDS if start.startswith(first)), None)


class PhotoSerializer(serializers.ModelSerializer):
    file = serializers.FileField(max_length=100, write_only=True)

    class Meta:
        model = Photo
        fields = ["name", "file"]
        read_only_fields = ["name"]

    def validate_file(self, file):
        if kind_of(file) is None:
            raise ValidationError("Send a PNG or a JPEG.", code="not_an_image")
        return file

    def save(self, **owned):
        file = self.validated_data["file"]
        suffix, _ = kind_of(file)
        name, file.name = file.name, f"photo.{suffix}"
        replaced = Photo.objects.filter(**owned).first()
        photo, _ = Photo.objects.update_or_create(**owned, defaults={"name": name, "file": file})
        if replaced:
            replaced.file.delete(save=False)
        return photo


class PhotoView(generics.GenericAPIView):
    """The photo of an order: its owner uploads and downloads it."""

    serializer_class = PhotoSerializer
    parser_classes = [MultiPartParser]
    upload_limit = 5 * MIB

    def get_queryset(self):
        return Photo.objects.filter(owner=self.request.user)

    @extend_schema(request={"multipart/form-data": PhotoSerializer})
    def put(self, request, pk):
        order = get_object_or_404(Order.objects.exclude(photo__in=self.others()), pk=pk)
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        photo = serializer.save(order=order, owner=request.user)
        return Response(self.get_serializer(photo).data)

    @extend_schema(responses={(200, "image/*"): OpenApiResponse(bytes)})
    def get(self, request, pk):
        photo = get_object_or_404(self.get_queryset(), order=pk)
        file = photo.file.open()
        _, media_type = kind_of(file)
        return FileResponse(file, as_attachment=True, filename=photo.name, content_type=media_type)

    def others(self):
        return Photo.objects.exclude(owner=self.request.user)


def describe(files):
    """Return the names of uploads, and how each is kept."""
    for file in files.values():
        file.close()
    return {file.name: type(file).__name__ for file in files.values()}


@upload_limit(3 * MIB)
@api_view(["POST"])
@parser_classes([MultiPartParser])
@permission_classes([permissions.AllowAny])
def function(request):
    return Response(describe(request.FILES))


@upload_limit(3 * MIB)
@csrf_exempt
def plain(request):
    return JsonResponse(describe(request.FILES))


class RawView(APIView):
    permission_classes = [permissions.AllowAny]
    parser_classes = [FileUploadParser]

    @upload_limit(3 * MIB)
    def put(self, request, filename):
        return Response(describe(request.data))

    def post(self, request, filename):
        return Response(describe(request.data))


class ActionViewSet(viewsets.GenericViewSet):
    permission_classes = [permissions.AllowAny]
    parser_classes = [MultiPartParser]
    serializer_class = PhotoSerializer

    def create(self, request):
        return Response(describe(request.data))

    @upload_limit(3 * MIB)
    def replace(self, request):
        return Response(describe(request.data))


class SmallView(APIView):
    """A view with DRF's parser and the limit of all bodies."""

    permission_classes = [permissions.AllowAny]
    parser_classes = [MultiPartParser]

    def post(self, request):
        return Response({"fields": len(request.data), **describe(request.FILES)})
