import re
import unicodedata

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.lookups import DataContains
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models.functions import Concat, Left
from django.utils import timezone
from django.utils.translation import gettext as _

from api.text import LineField, MultilineField

LARGEST_AMOUNT = 2**31 - 1
LONGEST_DESCRIPTION = 10_000
LONGEST_SEARCH = 200
MAXIMUM_WORDS = 6


class Fold(models.Func):
    """Text in NFKC with full case folding, for comparisons (migration 0003)."""

    function = "catalog_fold"
    output_field = models.TextField()


class Trigrams(models.Func):
    """All sequences of three characters in a folded text (migration 0003)."""

    function = "catalog_trigrams"
    output_field = ArrayField(models.TextField())


def search_words(text: str) -> list[str]:
    """Split a search into words that the index can find; raise ValidationError."""
    # Normalisation is expensive and may lengthen the text, so the length is checked twice.
    normal = text if len(text) > LONGEST_SEARCH else unicodedata.normalize("NFKC", text)
    if len(normal) > LONGEST_SEARCH:
        message = _("A search has at most %d characters.") % LONGEST_SEARCH
        raise ValidationError(message, code="max_length")
    words = normal.split()
    if len(words) > MAXIMUM_WORDS:
        message = _("At most %d words are allowed.") % MAXIMUM_WORDS
        raise ValidationError(message, code="too_many_words")
    if not all(has_trigram(word) for word in words):
        message = _("Each word needs three consecutive letters or digits.")
        raise ValidationError(message, code="word_too_short")
    return words


def has_trigram(word: str) -> bool:
    """Return whether a word has three consecutive letters or digits, ignoring combining marks."""
    letters = "".join(c for c in word if not unicodedata.category(c).startswith("M"))
    return re.search(r"[^\W_]{3}", letters) is not None


class ProductQuerySet(models.QuerySet["Product"]):
    def search_conditions(self, text: str) -> tuple[models.Q, models.Q] | None:
        """
        Return the conditions `match` and `index` (api.search), or None for a search without words.

        Every word must occur in the title or the description. The index looks up only the first
        eight characters of a word, which bounds its work.
        """
        words = [Fold(models.Value(word)) for word in search_words(text)]
        if not words:
            return None
        match, index = models.Q(), models.Q()
        for word in words:
            match &= models.Q(search_text__contains=word)
            index &= models.Q(DataContains(Trigrams("search_text"), Trigrams(Left(word, 8))))
        return match, index


class Product(models.Model):
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="products", db_index=False
    )
    title = LineField(max_length=200)
    description = MultilineField(max_length=LONGEST_DESCRIPTION, blank=True, default="")
    amount = models.IntegerField(
        validators=[MinValueValidator(0), MaxValueValidator(LARGEST_AMOUNT)]
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    # The line break prevents matches across title and description. Rows that were not validated may
    # be longer, and normalisation is quadratic.
    search_text = models.GeneratedField(
        expression=Fold(
            Concat(
                "title",
                models.Value("\n"),
                Left("description", LONGEST_DESCRIPTION),
                output_field=models.TextField(),
            )
        ),
        output_field=models.TextField(),
        db_persist=True,
    )

    objects = ProductQuerySet.as_manager()

    class Meta:
        indexes = [
            # One for each ordering. A backward scan serves the opposite direction.
            models.Index(fields=["created_at", "id"], name="catalog_product_created_at"),
            models.Index(fields=["title", "id"], name="catalog_product_title"),
            models.Index(fields=["amount", "id"], name="catalog_product_amount"),
            models.Index(fields=["owner", "created_at", "id"], name="catalog_product_owner"),
            models.Index(fields=["owner", "title", "id"], name="catalog_product_owner_title"),
            models.Index(fields=["owner", "amount", "id"], name="catalog_product_owner_amount"),
            GinIndex(Trigrams("search_text"), name="catalog_product_search"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(amount__gte=0), name="catalog_product_amount_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return str(self.title)
