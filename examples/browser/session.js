// Who is signed in, how the page keeps the session, and which view it shows.

import { Latchkey } from "./latchkey.js";
import { fill, say, show, showWait, toggle } from "./page.js";
import { views } from "./views.js";

export const BASE = document.querySelector("meta[name=api]").content;
const OUTSIDE = ["sign-in", "register", "forgot"];
// The views of emailed links, by the last part of their paths.
const LINKS = {
  "verify-email": "verify-email",
  "reset-password": "reset-password",
  register: "complete-registration",
  invite: "complete-registration",
};

/** `me` is the user who is signed in, and `link` the view and the token of an emailed link that is open. */
export const session = { api: null, me: null, link: null };
let offer = null; // what cancels the offer of passkeys in the field of the username

// Where the user is

/** Show the view of the address: of the account, or what somebody needs to sign in. */
export async function route() {
  const name = location.hash.slice(1);
  if (!session.me) return showOutside(OUTSIDE.includes(name) ? name : "sign-in");
  if (session.link) return show(session.link.view);
  const id = name in views ? name : "account";
  await views[id](document.getElementById(id), session.api, session.me);
  show(id);
}

function showOutside(id) {
  if (session.link && session.link.view !== "verify-email") return show(session.link.view);
  show(id);
  if (id === "sign-in") offerPasskeys();
}

/** Show a view, without a step back to the one before. */
export async function go(name) {
  if (location.hash !== `#${name}`) history.replaceState(null, "", `#${name}`);
  await route();
}

/** Show the account of a user who has signed in. */
export async function enter(user) {
  session.me = user;
  endOffer();
  say("");
  showUser();
  await go("account");
}

/** Show the sign-in to a user who has signed out, and say why. */
export async function leave(text) {
  session.me = null;
  showUser();
  await go("sign-in");
  say(text);
}

/** Leave where the session has ended already: only the tokens are left to delete. */
export async function forget(text) {
  session.me = null;
  await session.api.logout().catch(() => {});
  await leave(text);
}

function showUser() {
  for (const element of document.querySelectorAll(".inside")) {
    element.hidden = !session.me;
    fill(element, { username: session.me?.username ?? "" });
  }
}

/** Open a view that needs the token of an emailed link, or of a login. */
export function open(view, token) {
  session.link = { view, token };
  show(view);
}

/** Read the token of an emailed link from the address. */
export function readLink() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  const view = LINKS[location.pathname.split("/").at(-1)];
  if (!token || !view) return;
  session.link = { view, token };
  // Out of the address bar and the history, so that nobody reads it there.
  history.replaceState(null, "", ".");
}

/** Offer the passkeys of this device in the field of the username, until the user signs in. */
async function offerPasskeys() {
  if (offer || !(await globalThis.PublicKeyCredential?.isConditionalMediationAvailable?.())) return;
  const own = (offer = new AbortController());
  try {
    await enter(await session.api.loginWithPasskey({ mediation: "conditional", signal: own.signal, onWait: () => {} }));
  } catch (error) {
    // Otherwise none was chosen, or there are none at this address.
    if (error.code === "invalid_credentials") say(error.message);
  } finally {
    if (offer === own) offer = null;
  }
}

function endOffer() {
  offer?.abort();
  offer = null;
}

/** Do what asks for a passkey in a dialog of the browser, which shows one at a time. */
export async function withoutOffer(work) {
  endOffer();
  try {
    await work();
  } catch (error) {
    offerPasskeys();
    throw error;
  }
}

// How the page keeps its session

/** Return the mode that the user has chosen: `cookie` or `bearer`. */
export function mode() {
  return localStorage.getItem("mode") === "cookie" ? "cookie" : "bearer";
}

/** Begin, or begin again in another mode: sign in by what is kept, if there is a session. */
export async function start() {
  endOffer();
  const cookie = mode() === "cookie";
  const onSignedOut = () => client === session.api && checkUser();
  const client = new Latchkey(BASE, { cookie, onSignedOut, onWait: showWait });
  session.api = client;
  document.querySelector(`[name=mode][value=${mode()}]`).checked = true;
  try {
    const me = await whoIs();
    session.me ??= me; // The user may have signed in meanwhile.
  } catch (error) {
    if (!cookie || error.status !== 400) throw error;
    // The service expects a token in the body: REFRESH_COOKIE is not set.
    localStorage.removeItem("mode");
    toggle(document.getElementById("no-cookie"), true);
    return start();
  }
  showUser();
  await route();
}

/** Return the user who is signed in, or null. */
export async function whoIs() {
  try {
    return await session.api.request("GET", "/users/me");
  } catch (error) {
    if (error.status !== 401) throw error;
    return null;
  }
}

/** The session ended elsewhere; in another tab somebody else may have signed in. */
async function checkUser() {
  if (!session.me) return;
  session.me = await whoIs();
  await (session.me ? enter(session.me) : leave("You are signed out."));
}
