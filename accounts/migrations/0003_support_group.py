from django.db import migrations

GROUP = "Support"
PERMISSIONS = {"user": ["view_user"], "session": ["view_session", "end_session"], "event": ["view_event"]}


def make_group(apps, schema_editor):
    """Make the group with its permissions, which Django itself makes only after the migrations."""
    group, _ = apps.get_model("auth", "Group").objects.get_or_create(name=GROUP)
    for model, codenames in PERMISSIONS.items():
        content_type, _ = apps.get_model("contenttypes", "ContentType").objects.get_or_create(
            app_label="accounts", model=model
        )
        for codename in codenames:
            name = f"Can {codename.replace('_', ' ')}"
            permission, _ = apps.get_model("auth", "Permission").objects.get_or_create(
                content_type=content_type, codename=codename, defaults={"name": name}
            )
            group.permissions.add(permission)


def drop_group(apps, schema_editor):
    apps.get_model("auth", "Group").objects.filter(name=GROUP).delete()


class Migration(migrations.Migration):

    dependencies = [
        ("accounts", "0002_events"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [migrations.RunPython(make_group, drop_group)]
