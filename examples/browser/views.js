// What each view of a signed-in user shows: it reads from the API and changes nothing.

import { date, fill, list, toggle } from "./page.js";

const METHODS = { pwd: "a password", otp: "a code", pop: "a passkey" };
const EVENTS = { refused: "sign-in rejected", replayed: "a used token was sent again" };
const EVENTS_SHOWN = 20;

let events; // those that are not shown yet
let shown; // those that are

/** Show how the account is protected, which several views need. */
async function security(view, api) {
  const state = await api.security();
  fill(view, {
    ...state,
    is_unverified: !state.email_verified,
    has_no_totp: !state.totp,
    has_factor: state.totp || state.passkeys > 0,
    password_changed_at: date(state.password_changed_at),
  });
}

async function all(rows) {
  const found = [];
  for await (const row of rows) found.push(row);
  return found;
}

export const views = {
  async account(view, api, me) {
    fill(view, me);
    await security(view, api);
  },

  async security(view, api) {
    await security(view, api);
    toggle(document.getElementById("totp"), false);
    const passkeys = await all(api.passkeys());
    list(view, passkeys.map((passkey) => ({ ...passkey, last_used: date(passkey.last_used_at) })));
  },

  async devices(view, api) {
    const sessions = await all(api.sessions());
    list(view, sessions.map((session) => ({
      ...session,
      is_other: !session.current,
      last_used: date(session.last_used_at),
      with: session.methods.map((method) => METHODS[method]).filter(Boolean).join(" and "),
    })));
  },

  async tokens(view, api) {
    await security(view, api);
    const tokens = await all(api.paginate("/users/me/tokens"));
    list(view, tokens.map((token) => ({
      ...token,
      expires: date(token.expires_at),
      last_used: date(token.last_used_at),
    })));
    fill(view, { is_empty: !tokens.length });
  },

  async activity(view, api) {
    events = api.events();
    shown = [];
    await showMore(view);
  },
};

/** Show further events of the list, which is read page by page. */
export async function showMore(view) {
  let next;
  for (let count = 0; count < EVENTS_SHOWN; count++) {
    next = await events.next();
    if (next.done) break;
    shown.push(next.value);
  }
  list(view, shown.map((event) => ({
    ...event,
    what: sentence(EVENTS[event.event] ?? event.event.replaceAll("_", " ")),
    at: date(event.created_at),
    where: [event.device, event.ip_address, event.detail].filter(Boolean).join(", "),
  })));
  fill(view, { has_more: !next.done });
}

function sentence(words) {
  return words[0].toUpperCase() + words.slice(1);
}
