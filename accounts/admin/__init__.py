"""
The staff console's pages for users, invitations, sessions, API tokens, events and emails.

Who may do what is said by permissions: `end_session` ends sessions, `end_apitoken` ends API tokens,
`change_user` changes users. Only superusers touch staff, groups and permissions, so nobody raises
anybody, themselves included.
"""

from accounts.admin import api_tokens, emails, events, groups, invitations, sessions, users

__all__ = ["api_tokens", "emails", "events", "groups", "invitations", "sessions", "users"]
