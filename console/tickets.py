"""
Tickets of sign-ins that are not complete, in the session of the browser.

Nobody is signed in yet. The session has the id of a ticket, which works once and soon expires.
"""

import uuid

from django.http import HttpRequest

from accounts.models import Ticket, TicketError


def keep(request: HttpRequest, ticket: Ticket) -> None:
    """Keep a ticket in a session with a new key: another person may know the old one."""
    request.session.cycle_key()
    request.session[ticket.purpose] = str(ticket.pk)


def token_of(request: HttpRequest, purpose: str) -> str | None:
    """Return the token of the kept ticket, which may have ended, if there is one."""
    ticket_id = request.session.get(purpose)
    return Ticket(pk=uuid.UUID(ticket_id), purpose=purpose).token if ticket_id else None


def find(request: HttpRequest, purpose: str) -> Ticket | None:
    """Return the kept ticket with its user, while it is open."""
    try:
        return Ticket.objects.find(token_of(request, purpose), purpose)
    except TicketError:
        return None
