"""Models like those of a clone, in a separate console."""

from django import forms
from django.contrib import admin
from django.contrib.contenttypes.models import ContentType
from django.db import connection, models
from django.test.utils import isolate_apps
from django.urls import path

from console.site import ConsoleSite

with isolate_apps("health"):

    class Sample(models.Model):
        title = models.CharField(max_length=50)
        notes = models.TextField(blank=True)
        secret = models.CharField(max_length=50, blank=True)
        data = models.JSONField(default=dict)
        at = models.DateTimeField()
        is_open = models.BooleanField(default=True)
        number = models.IntegerField(default=0)
        file = models.FileField(blank=True)

        class Meta:
            app_label = "health"

        def __str__(self) -> str:
            return self.title

    class Part(models.Model):
        sample = models.ForeignKey(Sample, models.CASCADE)
        title = models.CharField(max_length=50)
        number = models.IntegerField(default=0)

        class Meta:
            app_label = "health"

        def __str__(self) -> str:
            return self.title

    class Order(models.Model):
        sample = models.ForeignKey(Sample, models.PROTECT)
        title = models.CharField(max_length=50)

        class Meta:
            app_label = "health"

        def __str__(self) -> str:
            return self.title


class PartInline(admin.TabularInline):
    model = Part
    extra = 1


class SampleForm(forms.ModelForm):
    class Meta:
        widgets = {"secret": forms.PasswordInput}


class SampleAdmin(admin.ModelAdmin):
    form = SampleForm
    inlines = [PartInline]
    list_display = ["title", "number", "is_open"]
    list_editable = ["number", "is_open"]


class OrderAdmin(admin.ModelAdmin):
    list_filter = ["sample"]


def install() -> type:
    """Create the tables and return the URLs of a console for them."""
    site = ConsoleSite()
    site.register(Sample, SampleAdmin)
    site.register(Order, OrderAdmin)
    site.register(Part, admin.ModelAdmin)
    ContentType.objects.clear_cache()  # Its rows may have been rolled back.
    with connection.schema_editor() as editor:
        for model in (Sample, Part, Order):
            editor.create_model(model)
    return type("Urls", (), {"urlpatterns": [path("admin/", site.urls)]})
