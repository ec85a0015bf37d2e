import django.db.models.functions.text
from django.db import migrations, models

import catalog.models

# Standard SQL bodies are bound at creation, so search_path does not affect them.
FUNCTIONS = r"""
CREATE FUNCTION catalog_fold(text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    -- Full case folding (ss for ß, σ for ς) denormalises a few letters, so they are normalised again.
    -- One character may become 18. The cut keeps a row, and so a search, at a bounded size.
    RETURN left(
        normalize(casefold(normalize($1, NFKC) COLLATE pg_catalog.pg_unicode_fast), NFKC), 12000
    );

-- The trigrams of pg_trgm are limited to ASCII letters if the database has LC_CTYPE C.
CREATE FUNCTION catalog_trigrams(text) RETURNS text[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ARRAY(
        SELECT trigram[1]
          FROM generate_series(1, 3) AS start, regexp_matches(substr($1, start), '...', 'g') AS trigram
         WHERE strpos(trigram[1], ' ') = 0 AND strpos(trigram[1], E'\n') = 0
    );
"""
# The text is read far more often than written.
STORAGE = "ALTER TABLE catalog_product ALTER COLUMN search_text SET STORAGE EXTERNAL"
DROP = "DROP FUNCTION catalog_trigrams(text); DROP FUNCTION catalog_fold(text);"


class Migration(migrations.Migration):
    """Add the search text. This rewrites the table: see "Upgrade" in docs/operations.md."""

    dependencies = [("catalog", "0002_catalog_group")]

    operations = [
        migrations.RunSQL(FUNCTIONS, DROP),
        migrations.AddField(
            model_name="product",
            name="search_text",
            field=models.GeneratedField(
                db_persist=True,
                expression=catalog.models.Fold(
                    django.db.models.functions.text.Concat(
                        "title",
                        models.Value("\n"),
                        django.db.models.functions.text.Left("description", 10_000),
                        output_field=models.TextField(),
                    )
                ),
                output_field=models.TextField(),
            ),
        ),
        migrations.RunSQL(STORAGE, migrations.RunSQL.noop),
    ]
