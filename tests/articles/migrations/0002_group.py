from django.db import migrations

GROUP = "Articles"
ACTIONS = ["view", "add", "change", "delete"]


def make_group(apps, schema_editor):
    """Make the group with its permissions, which Django itself makes only after the migrations."""
    group, _ = apps.get_model("auth", "Group").objects.get_or_create(name=GROUP)
    content_type, _ = apps.get_model("contenttypes", "ContentType").objects.get_or_create(
        app_label="articles", model="article"
    )
    for action in ACTIONS:
        permission, _ = apps.get_model("auth", "Permission").objects.get_or_create(
            content_type=content_type,
            codename=f"{action}_article",
            defaults={"name": f"Can {action} article"},
        )
        group.permissions.add(permission)


def drop_group(apps, schema_editor):
    apps.get_model("auth", "Group").objects.filter(name=GROUP).delete()


class Migration(migrations.Migration):

    dependencies = [
        ("articles", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [migrations.RunPython(make_group, drop_group)]
