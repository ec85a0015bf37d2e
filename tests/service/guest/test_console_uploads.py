"""Uploads of a `ModelAdmin`, whose forms have 192 KiB without a limit of their own."""

from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin import ModelAdmin
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import path
from pytest_django import Settings

from accounts.models import User
from api.uploads import MIB
from config import urls
from console.site import ConsoleSite
from tests.service.guest.models import Customer, Order, Photo


class PhotoAdmin(ModelAdmin):
    fields = ["order", "owner", "name", "file"]
    upload_limit = 3 * MIB


site = ConsoleSite()
site.register(Photo, PhotoAdmin)
urlpatterns = [path("admin/", site.urls), *urls.urlpatterns]


@pytest.mark.urls(__name__)
def test_the_limit_of_a_model_admin(
    console: Client, boss: User, settings: Settings, tmp_path: Path
) -> None:
    settings.MEDIA_ROOT = str(tmp_path)
    order = Order.objects.create(customer=Customer.objects.create(name="Ada"), number="7")

    def add(size: int) -> Any:
        file = SimpleUploadedFile("a.png", b";" * size)
        form = {"order": order.pk, "owner": boss.pk, "name": "a", "file": file}
        return console.post("/admin/guest/photo/add/", form)

    rejected = add(3 * MIB)
    accepted = add(2_900_000)

    assert (rejected.status_code, accepted.status_code) == (413, 302)
    assert "The body exceeds 3 MiB." in rejected.content.decode()
    assert Photo.objects.get().file.size == 2_900_000
