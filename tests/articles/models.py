from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone

from api.text import LineField, MultilineField

LARGEST_AMOUNT = 2**31 - 1
LONGEST_DESCRIPTION = 10_000


class Article(models.Model):
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="articles", db_index=False
    )
    title = LineField(max_length=200)
    description = MultilineField(max_length=LONGEST_DESCRIPTION, blank=True, default="")
    amount = models.IntegerField(
        validators=[MinValueValidator(0), MaxValueValidator(LARGEST_AMOUNT)]
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        indexes = [
            # One for each ordering. A backward scan serves the opposite direction.
            models.Index(fields=["created_at", "id"], name="articles_article_created_at"),
            models.Index(fields=["title", "id"], name="articles_article_title"),
            models.Index(fields=["amount", "id"], name="articles_article_amount"),
            models.Index(fields=["owner", "created_at", "id"], name="articles_article_owner"),
            models.Index(fields=["owner", "title", "id"], name="articles_article_owner_title"),
            models.Index(fields=["owner", "amount", "id"], name="articles_article_owner_amount"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(amount__gte=0), name="articles_article_amount_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return str(self.title)
