import django.db.models
from django.core.exceptions import ValidationError
from django.core.management import CommandError
from django.db import migrations

import accounts.identities
import api.text

STORED_EMAIL = r"^[!-\[\]-~]+@[!-\[\]-~]+$"
STORED_USERNAME = r"^[A-Za-z0-9_.-]+$"


def convert_emails(apps, schema_editor):
    """Store e-mail domains in IDNA's ASCII form; stop where an identity has no such form."""
    users = apps.get_model("accounts", "User").objects.using(schema_editor.connection.alias)
    unfit = [*users.exclude(username__regex=STORED_USERNAME).values_list("pk", flat=True)]
    for user in users.exclude(email__regex=STORED_EMAIL).only("email").iterator():
        try:
            user.email = accounts.identities.canonical_email(user.email)
        except ValidationError:
            unfit.append(user.pk)
        else:
            user.save(update_fields=["email"])
    if unfit:
        # An address that looks like another one may be an attack, so nothing is guessed here.
        raise CommandError(
            "The username or the e-mail address of these users is not valid any more. Change or "
            f"delete these users, then migrate again. Their ids: {', '.join(map(str, unfit))}"
        )


class Migration(migrations.Migration):

    dependencies = [("accounts", "0003_support_group")]

    operations = [
        migrations.AlterField(
            "user", "email", accounts.identities.EmailAddressField(max_length=254)
        ),
        migrations.AlterField(
            "user", "names", api.text.LineField(blank=True, default="", max_length=150)
        ),
        migrations.RunPython(convert_emails, migrations.RunPython.noop),
        migrations.AddConstraint(
            "user",
            django.db.models.CheckConstraint(
                condition=django.db.models.Q(username__regex=STORED_USERNAME),
                name="accounts_user_username_ascii",
            ),
        ),
        migrations.AddConstraint(
            "user",
            django.db.models.CheckConstraint(
                condition=django.db.models.Q(email__regex=STORED_EMAIL),
                name="accounts_user_email_ascii",
            ),
        ),
    ]
