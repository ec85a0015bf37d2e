"""Tickets of sign-ins whose password was right, and that wait for the second factor."""

from typing import TYPE_CHECKING

from django.db import connection

from accounts.models.managers import user_query
from accounts.models.session_tokens import load_user
from accounts.models.tickets import Ticket, TicketError, read_token

if TYPE_CHECKING:
    from accounts.models import User

TRIES = 5

# Counted before the code is verified, or several at once would have more tries.
TRY = """
    UPDATE accounts_ticket SET tries = tries + 1
      FROM accounts_user
     WHERE accounts_ticket.id = %s AND used_at IS NULL AND expires_at > clock_timestamp()
       AND tries < %s AND accounts_user.id = user_id AND is_active
 RETURNING data ->> 'source', {columns}
"""


def issue(user: "User", source: str) -> Ticket:
    """
    Return the ticket of a sign-in; `source` is what its attempts are counted by.

    Raises TicketError where the user is not active any more.
    """
    return Ticket.objects.issue(Ticket.Purpose.MFA, user, source=source)


def try_once(token: object) -> Ticket:
    """Count a try and return its ticket, with the user; raises TicketError for any other token."""
    _, ticket_id = read_token(token, [Ticket.Purpose.MFA])
    query = user_query()
    with connection.cursor() as cursor:
        cursor.execute(TRY.format(columns=query.columns), [ticket_id, TRIES])
        row = cursor.fetchone()
    if row is None:
        raise TicketError
    source, *values = row
    user = load_user(query.values(values))
    return Ticket(pk=ticket_id, purpose=Ticket.Purpose.MFA, user=user, data={"source": source})
