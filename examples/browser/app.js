// What a user does: sign in, and change the account. The other modules are latchkey.js, the client of the
// API; session.js, who is signed in; views.js, what the API returns; and page.js, forms and dialogs.

import { ask, download, fill, onSubmit, reason, say, show, toggle } from "./page.js";
import {
  BASE, enter, forget, go, leave, mode, open, readLink, route, session, start, whoIs, withoutOffer,
} from "./session.js";
import { showMore } from "./views.js";

const MAILBOX = new URL("/mail", new URL(BASE, location.href));
let login = null; // the problem document of a login that is to be completed

// Signing in

const actions = {
  async signIn({ identity, password }) {
    try {
      await enter(await session.api.login(identity, password));
    } catch (error) {
      if (error.code === "mfa_required") return askForFactor(error.problem);
      if (error.code !== "password_change_required") throw error;
      open("reset-password", error.problem.reset_token);
    }
  },
  signInWithPasskey: () => withoutOffer(async () => enter(await session.api.loginWithPasskey())),
  async completeLogin({ code }) {
    try {
      await enter(await session.api.completeLogin(login.mfa_token, { code }));
    } catch (error) {
      if (error.code === "invalid_credentials") error.message = "The code is wrong, or was used before.";
      throw error;
    }
  },
  completeLoginWithPasskey: () => withoutOffer(async () => enter(await session.api.completeLoginWithPasskey(login))),

  async register({ username, email, password }) {
    try {
      await session.api.register({ username, email, password });
    } catch (error) {
      if (!error.problem?.errors?.some(({ field }) => field === "registration_token")) throw error;
      // With REGISTRATION=verified an account begins with the address.
      await session.api.beginRegistration(email);
      return sayEmailed("Open the link that was sent to you to choose your username and password.");
    }
    await enter(await session.api.login(username, password));
  },
  async completeRegistration({ username, password }) {
    await session.api.register({ registration_token: session.link.token, username, password });
    session.link = null;
    await enter(await session.api.login(username, password));
  },
  async forgotPassword({ identity }) {
    await session.api.forgotPassword(identity);
    sayEmailed("If there is such an account, it has an email with a link.");
  },
  async resetPassword({ new_password }) {
    await session.api.resetPassword(session.link.token, new_password);
    session.link = null;
    await forget("Your password is changed. Sign in with the new one.");
  },

  async signOut() {
    try {
      await session.api.logout();
    } catch (error) {
      // In cookie mode the next page would be signed in again.
      if (mode() === "cookie" && error.status !== 401) throw error;
    }
    await leave("You are signed out.");
  },

  // Account

  async verifyEmail() {
    session.me = await session.api.verifyEmail(session.link.token);
    session.link = null;
    await go("account");
    say("Your email address is confirmed.");
  },
  async sendVerification() {
    await session.api.sendVerification();
    sayEmailed("The link is sent.");
  },
  async changeEmail({ email }) {
    await fresh(() => session.api.changeEmail(email));
    await route();
    sayEmailed("Open the link that was sent to the new address.");
  },
  async export() {
    const data = await fresh(() => session.api.request("GET", "/users/me/export"));
    download(`${session.me.username}.json`, JSON.stringify(data, null, 2));
  },
  async deleteAccount() {
    await fresh(() => session.api.request("DELETE", `/users/${session.me.id}`));
    await forget("Your account is deleted.");
  },

  // Security

  async changePassword({ current_password, new_password }) {
    await session.api.changePassword(current_password, new_password);
    await route();
    say("Your password is changed.");
  },
  async beginTotp() {
    const { secret, uri } = await fresh(() => session.api.request("POST", "/users/me/totp"));
    const form = document.getElementById("totp");
    fill(form, { secret: secret.match(/.{1,4}/g).join(" "), uri });
    toggle(form, true);
    form.elements.code.focus();
  },
  async confirmTotp({ code }) {
    const body = { code: code.replaceAll(" ", "") };
    await keep(await fresh(() => session.api.request("POST", "/users/me/totp/confirm", body)));
    await route();
    say("The authenticator app is on.");
  },
  removeTotp: () => change(() => session.api.request("DELETE", "/users/me/totp"), "The authenticator app is off."),
  async addPasskey({ name }) {
    await keep(await fresh(() => session.api.addPasskey(name)));
    await route();
    say("The passkey is added.");
  },
  removePasskey: ({ id }) => change(() => session.api.removePasskey(id), "The passkey is removed."),
  async replaceRecoveryCodes() {
    await keep(await fresh(() => session.api.request("POST", "/users/me/recovery-codes")));
    await route();
  },

  // Devices and API tokens

  endSession: ({ id }) => change(() => session.api.endSession(id), "That device is signed out."),
  async signOutEverywhere() {
    await session.api.logoutAll();
    await leave("You are signed out on every device.");
  },
  async createToken({ name, scope, expires_in_days }) {
    const body = { name, scope, expires_in_days: Number(expires_in_days) };
    const { token } = await fresh(() => session.api.request("POST", "/users/me/tokens", body));
    await showOnce("Your new API token", "A program sends it as Authorization: Bearer.", token);
    await route();
  },
  endToken: ({ id }) => change(() => session.api.request("DELETE", `/users/me/tokens/${id}`), "The token has ended."),
  showMore: () => showMore(document.getElementById("activity")),

  // Dialogs

  signInAgain: async (proof) => prove(() => session.api.reauthenticate(proof)),
  signInAgainWithPasskey: () => prove(() => session.api.reauthenticateWithPasskey()),
  async copy() {
    await navigator.clipboard.writeText(document.querySelector("#shown-once pre").textContent);
    say("Copied.");
  },
};

function askForFactor(problem) {
  login = problem;
  history.replaceState(null, "", "#second-factor");
  fill(document.getElementById("second-factor"), waysOf(problem.methods));
  show("second-factor");
}

function waysOf(methods) {
  return {
    code: methods.includes("totp") || methods.includes("recovery_code"),
    passkey: methods.includes("passkey"),
  };
}

/** Do what needs a fresh sign-in: where the service asks for one, let the user sign in, and repeat. */
async function fresh(work) {
  try {
    return await work();
  } catch (error) {
    if (error.code !== "reauthentication_required") throw error;
    await ask("again", waysOf(error.problem.methods));
    return work();
  }
}

async function prove(work) {
  await work();
  document.getElementById("again").close("done");
}

/** Change something that needs a fresh sign-in, and show the view again. */
async function change(work, done) {
  await fresh(work);
  await route();
  say(done);
}

async function keep({ recovery_codes }) {
  const why = "If you lose your app or your passkey, each of these signs you in once. Keep them somewhere safe.";
  if (recovery_codes) await showOnce("Your recovery codes", why, recovery_codes.join("\n"));
}

function showOnce(title, why, text) {
  const values = { title, why: `${why} This is shown only once.`, text };
  return ask("shown-once", values).catch(() => {}).finally(() => fill(document.getElementById("shown-once"), { text: "" }));
}

function sayEmailed(text) {
  const mailbox = Object.assign(document.createElement("a"), { href: MAILBOX, target: "_blank" });
  mailbox.textContent = "Open the mailbox";
  say(text, mailbox);
}

/** Show why something failed that no form began. */
function reporting(work) {
  return (event) => work(event).catch((error) => say(reason(error)));
}

onSubmit(actions);
readLink();
window.addEventListener("hashchange", reporting(async () => {
  // Who goes elsewhere drops the link, unless it needs a sign-in first.
  if (session.me || session.link?.view !== "verify-email") session.link = null;
  say("");
  await route();
}));
document.addEventListener("visibilitychange", reporting(async () => {
  // The user may have opened the link of an email in the meantime.
  if (document.hidden || !session.me || session.link || location.hash !== "#account") return;
  session.me = await whoIs();
  await route();
}));
document.getElementById("modes").addEventListener("change", reporting(async ({ target }) => {
  localStorage.setItem("mode", target.value);
  await start();
}));
for (const anchor of document.querySelectorAll(".mailbox")) anchor.href = MAILBOX;
reporting(start)();
