from django.core.management import CommandError
from django.db import migrations, models


def find_encoded_words(apps, schema_editor):
    """Stop where an address is read as another one by mail programs; nothing is guessed here."""
    users = apps.get_model("accounts", "User").objects.using(schema_editor.connection.alias)
    unfit = users.filter(email__contains="=?").order_by("pk").values_list("pk", flat=True)
    if unfit:
        raise CommandError(
            "The e-mail address of these users contains =?. Change or delete these users, then "
            f"migrate again. Their ids: {', '.join(map(str, unfit))}"
        )


class Migration(migrations.Migration):

    dependencies = [("accounts", "0007_email_verified_and_fresh_sessions")]

    operations = [
        migrations.RunPython(find_encoded_words, migrations.RunPython.noop),
        migrations.AddConstraint(
            "user",
            models.CheckConstraint(
                condition=~models.Q(email__contains="=?"),
                name="accounts_user_email_no_encoded_word",
            ),
        ),
    ]
