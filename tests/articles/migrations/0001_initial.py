import django.core.validators
import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [migrations.swappable_dependency(settings.AUTH_USER_MODEL)]

    operations = [
        migrations.CreateModel(
            name="Article",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("title", models.CharField(max_length=200)),
                ("description", models.TextField(blank=True, default="", max_length=10000)),
                ("amount", models.IntegerField(validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(2147483647)])),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("owner", models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="articles", to=settings.AUTH_USER_MODEL)),
            ],
            options={
                "indexes": [
                    models.Index(fields=["created_at", "id"], name="articles_article_created_at"),
                    models.Index(fields=["title", "id"], name="articles_article_title"),
                    models.Index(fields=["amount", "id"], name="articles_article_amount"),
                    models.Index(fields=["owner", "created_at", "id"], name="articles_article_owner"),
                    models.Index(fields=["owner", "title", "id"], name="articles_article_owner_title"),
                    models.Index(fields=["owner", "amount", "id"], name="articles_article_owner_amount"),
                ],
                "constraints": [
                    models.CheckConstraint(condition=models.Q(amount__gte=0), name="articles_article_amount_not_negative")
                ],
            },
        ),
    ]
