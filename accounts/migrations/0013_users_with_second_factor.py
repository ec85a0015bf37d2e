from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    """Index the users who have a second factor, whom the console counts, without a lock."""

    atomic = False

    dependencies = [("accounts", "0012_invitations")]

    operations = [
        AddIndexConcurrently(
            "user",
            models.Index(
                fields=["id"],
                condition=models.Q(has_second_factor=True),
                name="accounts_user_second_factor",
            ),
        ),
    ]
