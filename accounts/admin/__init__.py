"""
The staff console's pages for users, invitations, sessions, events and emails.

Who may do what is said by permissions: `end_session` ends sessions, `change_user` changes users.
Only superusers touch staff, groups and permissions, so nobody raises anybody, themselves included.
"""

from accounts.admin import emails, events, groups, invitations, sessions, users

__all__ = ["emails", "events", "groups", "invitations", "sessions", "users"]
