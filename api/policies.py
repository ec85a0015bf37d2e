"""Content security policies of API responses and of pages."""

from collections.abc import Mapping, Sequence

from django.conf import settings

API_POLICY = "default-src 'none'; frame-ancestors 'none'"
PAGE_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'"
)


def page_policy() -> str:
    """
    Return the policy of pages outside the API and the console.

    It is the setting `SECURE_CSP` of Django 6, if it is set: a list of sources for each directive.
    """
    directives: Mapping[str, Sequence[str]] = getattr(settings, "SECURE_CSP", {})
    return "; ".join(" ".join([name, *directives[name]]) for name in directives) or PAGE_POLICY
