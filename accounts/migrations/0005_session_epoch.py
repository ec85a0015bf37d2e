from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("accounts", "0004_canonical_identities"),
    ]

    operations = [
        migrations.AddField(
            model_name="user",
            name="session_epoch",
            field=models.PositiveIntegerField(db_default=0, default=0, editable=False),
        ),
        migrations.AlterField(
            model_name="user",
            name="must_change_password",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="The next sign-in is rejected until the user has chosen a new password.",
            ),
        ),
        migrations.AddField(
            model_name="event",
            name="actor_id",
            field=models.BigIntegerField(editable=False, null=True),
        ),
        migrations.AlterField(
            model_name="session",
            name="end_reason",
            field=models.CharField(
                blank=True,
                choices=[
                    ("logout", "signed out"),
                    ("logout_all", "signed out everywhere"),
                    ("user", "ended by the user"),
                    ("staff", "ended by staff"),
                    ("password_changed", "password changed"),
                    ("account_changed", "account deactivated"),
                    ("token_reuse", "refresh token used twice"),
                    ("session_limit", "session limit reached"),
                ],
                editable=False,
                max_length=16,
            ),
        ),
    ]
