"use strict";

const API = "/api/v1";
const INCOMPLETE = "This link is incomplete. Open it again from the email.";
const INVALID = "This link is no longer valid. It may have been used, or it has expired.";
const UNREACHABLE = "The service cannot be reached. Try again.";

const form = document.getElementById("form");
const message = document.getElementById("message");
const token = new URLSearchParams(location.hash.slice(1)).get("token");
// Out of the address bar and the history, so that nobody reads it there.
history.replaceState(null, "", location.pathname);

const actions = {
  reset: ({ new_password }) => call("POST", "/auth/password/reset", { token, new_password }),
  register: (fields) => call("POST", "/users", { registration_token: token, ...fields }),
  verify: async (fields) => {
    const { access_token } = await signIn(fields);
    try {
      await call("POST", "/users/me/email/verify", { token }, access_token);
    } finally {
      // A session that could not be ended expires; the address is verified all the same.
      await call("POST", "/auth/logout", {}, access_token).catch(() => {});
    }
  },
};

let mfaToken; // of a sign-in that waits for a code

/** Sign in; where the user has a second factor, ask for a code, which completes it. */
async function signIn({ identity, password, code }) {
  try {
    if (!mfaToken) return await call("POST", "/auth/login", { identity, password });
    return await call("POST", "/auth/mfa", { mfa_token: mfaToken, code });
  } catch (problem) {
    if (mfaToken && problem.code === "invalid_credentials") throw { detail: form.dataset.wrong };
    if (problem.code === "mfa_required") throw askFor("code", problem.mfa_token);
    const hasEnded = problem.errors?.some((error) => error.field === "mfa_token");
    throw hasEnded ? askFor("password") : problem;
  }
}

/** Show the fields of a step of the sign-in, and return what to tell the user. */
function askFor(step, token) {
  mfaToken = token;
  for (const field of form.querySelectorAll(".field")) {
    field.hidden = (field.dataset.step ?? "password") !== step;
  }
  return { detail: form.dataset[step] };
}

/** Send JSON and return the JSON of the response; throw its problem document. */
async function call(method, path, body, bearer) {
  const headers = { "Content-Type": "application/json" };
  if (bearer) headers.Authorization = `Bearer ${bearer}`;
  // Without cookies, so that signing out here leaves the session of a front end on this host.
  const credentials = "omit";
  const response = await fetch(API + path, { method, headers, body: JSON.stringify(body), credentials });
  const answer = response.status === 204 ? {} : await response.json();
  if (!response.ok) throw answer;
  return answer;
}

function show(text) {
  message.textContent = text;
  message.hidden = !text;
  if (text) message.focus();
}

function mark(input, text) {
  document.getElementById(`${input.name}-error`).textContent = text;
  input.setAttribute("aria-invalid", String(Boolean(text)));
}

function inputs() {
  return [...form.querySelectorAll(".field:not([hidden]) input")];
}

/** Show each error at its field, the others above the form; focus the first. */
function explain(problem) {
  const errors = problem.errors ?? [];
  if (errors.some((error) => error.code === "ticket_not_valid")) {
    form.hidden = true;
    return show(INVALID);
  }
  const named = new Set(inputs().map((input) => input.name));
  for (const input of inputs()) {
    const own = errors.filter((error) => error.field === input.name);
    mark(input, own.map((error) => error.detail).join(" "));
  }
  const others = errors.filter((error) => !named.has(error.field)).map((error) => error.detail);
  if (!errors.length) others.push(problem.detail ?? UNREACHABLE);
  show(others.join(" "));
  if (!others.length) form.querySelector("[aria-invalid=true]").focus();
}

function hasMissing() {
  const missing = inputs().filter((input) => !input.value);
  inputs().forEach((input) => mark(input, input.value ? "" : "This field is required."));
  missing[0]?.focus();
  return missing.length > 0;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  show("");
  if (hasMissing()) return;
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    await actions[form.dataset.action](Object.fromEntries(new FormData(form)));
    form.hidden = true;
    show(form.dataset.done);
  } catch (problem) {
    explain(problem);
  } finally {
    button.disabled = false;
  }
});

if (token) form.hidden = false;
else show(INCOMPLETE);
