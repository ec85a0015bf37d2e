// A Latchkey client in one file, for browsers, Node and React Native. It stores the tokens, refreshes
// expired ones, shares one refresh among all tabs, and waits for rate limits.
//
//   const api = new Latchkey("https://api.example.com/api/v1", { onWait: showSeconds });
//   await api.login("alice", "a sunny day in May");
//   const me = await api.request("GET", "/users/me");
//   for await (const session of api.paginate("/auth/sessions?limit=100")) show(session);
//
// `latchkey.d.ts` has its types.

const MAXIMUM_WAIT = 60; // seconds that one call waits for rate limits and a busy service, in total
const ROTATION_TIMEOUT = 8; // seconds: below the service's grace, in which the next refresh still succeeds
const QUESTION_TIMEOUT = 100; // milliseconds in which other tabs send their tokens to a new one
const IDEMPOTENT = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"];
const REPEATS = 3; // of an idempotent request after a 502 or 504

/**
 * An error response. `problem` is the problem document, or empty. Clients act on `code`.
 * `retryAfter` is the number of seconds after which the service, which did nothing, may be asked again.
 */
export class ApiError extends Error {
  constructor(status, problem, { retryAfter, isRepeatable = false } = {}) {
    super(problem.detail ?? `status ${status}`);
    this.status = status;
    this.code = problem.code;
    this.problem = problem;
    this.retryAfter = retryAfter;
    this.isRepeatable = isRepeatable;
  }
}

/**
 * Keep the tokens in IndexedDB, for all tabs of the origin.
 *
 * A tab may read an old value from localStorage, even under a lock that all tabs share; a refresh
 * with that value ends the session.
 */
export function indexedDBStore(name = "latchkey") {
  async function run(mode, operation) {
    // Safari closes the connections of pages in the background, so none is kept.
    const opening = indexedDB.open(name, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("pairs");
    const database = await new Promise((resolve, reject) => {
      opening.onsuccess = () => resolve(opening.result);
      opening.onerror = () => reject(opening.error);
    });
    try {
      // A spent token after a crash would end the session, so the next one is written to the disk.
      const transaction = database.transaction("pairs", mode, { durability: "strict" });
      const request = operation(transaction.objectStore("pairs"));
      await new Promise((resolve, reject) => {
        transaction.oncomplete = resolve;
        transaction.onabort = () => reject(transaction.error);
      });
      return request.result;
    } finally {
      database.close();
    }
  }
  return {
    name,
    get: async () => (await run("readonly", (pairs) => pairs.get("pair"))) ?? null,
    set: (pair) => run("readwrite", (pairs) => pairs.put(pair, "pair")),
    clear: () => run("readwrite", (pairs) => pairs.delete("pair")),
  };
}

/** Keep the tokens in memory, for this client alone. */
export function memoryStore() {
  let stored = null;
  return {
    get: async () => stored,
    set: async (pair) => void (stored = pair),
    clear: async () => void (stored = null),
  };
}

/**
 * Keep the tokens in memory, for all tabs of the origin that are open at the same time.
 *
 * It is for a refresh token in a cookie: a tab that misses a message gets its tokens by that.
 */
export function sharedMemoryStore(name = "latchkey") {
  const channel = new BroadcastChannel(`${name}-tokens`);
  let stored = null;
  const opened = new Promise((resolve) => {
    channel.onmessage = ({ data: { isQuestion, reply, pair } }) => {
      if (isQuestion) {
        if (stored) channel.postMessage({ reply: stored });
        return;
      }
      stored = reply ? (stored ?? reply) : pair;
      resolve();
    };
    channel.postMessage({ isQuestion: true });
    setTimeout(resolve, QUESTION_TIMEOUT);
  });
  async function set(pair) {
    stored = pair;
    channel.postMessage({ pair });
  }
  return { name, get: async () => opened.then(() => stored), set, clear: () => set(null) };
}

export class Latchkey {
  #cookie;
  #resuming;
  #onSignedOut;
  #onWait;
  #maximumWait;
  #channel;
  #queue = Promise.resolve();

  /**
   * A store has `get`, `set` and `clear`, which return promises. If it has a `name`, all tabs share it.
   * With `cookie` the refresh token is in a cookie that no script can read, and the access token in memory:
   * the page needs no store, and the service needs REFRESH_COOKIE.
   * `onWait(seconds)` is called when a wait begins, and `onWait(0)` when it ends.
   * `onSignedOut()` is called when the session ended otherwise than by a call in this tab: the service
   * rejected it, or another tab signed out or signed in anew.
   */
  constructor(
    base,
    { store, cookie = false, onSignedOut = () => {}, onWait = () => {}, maximumWait = MAXIMUM_WAIT } = {},
  ) {
    this.base = base;
    this.store = store ?? (cookie ? sharedMemoryStore() : globalThis.indexedDB ? indexedDBStore() : memoryStore());
    this.#cookie = cookie;
    this.#onSignedOut = onSignedOut;
    this.#onWait = onWait;
    this.#maximumWait = maximumWait;
    if (this.store.name && globalThis.BroadcastChannel) {
      this.#channel = new BroadcastChannel(this.store.name);
      this.#channel.onmessage = () => this.#onSignedOut();
    }
  }

  /** Create an account and return its user, who is not signed in. */
  register(user, options) {
    return this.#anonymously("/users", user, options);
  }

  /**
   * Sign in and return the user. A user with a second factor gets an ApiError with the code `mfa_required`; its
   * `problem` has the `mfa_token` for `completeLogin`, and `methods`.
   */
  login(identity, password, options) {
    return this.#begin("/auth/login", { identity, password }, options);
  }

  /**
   * Sign in with a passkey and return the user. With `{ mediation: "conditional" }` the browser offers the
   * passkeys in a field with `autocomplete="username webauthn"`, until `signal` cancels it.
   */
  async loginWithPasskey(options) {
    let credential = null;
    while (!credential) {
      const publicKey = await this.#anonymously("/auth/passkey/options", {}, options);
      credential = await getPasskey(publicKey, options);
    }
    return this.#begin("/auth/passkey", { credential }, options);
  }

  /** Prove a second factor by `{ code }`, of an authenticator app or for recovery, and return the user. */
  completeLogin(mfa_token, proof, options) {
    return this.#begin("/auth/mfa", { mfa_token, ...proof }, options);
  }

  /** Prove a second factor by passkey and return the user; `problem` is that of the `mfa_required`. */
  async completeLoginWithPasskey({ mfa_token, passkey_options }, options) {
    const credential = await getPasskey(passkey_options, options);
    return this.completeLogin(mfa_token, { credential }, options);
  }

  /** Begin a session by a request that returns its tokens; return the user. */
  #begin(path, proof, options) {
    // Alone, so that no refresh of another tab sets the cookie of an earlier session afterwards.
    const begin = async () => {
      const { user, ...pair } = await this.#send("POST", path, this.#withCookie(proof), options);
      const replaced = await this.store.get();
      await this.store.set(pair);
      if (replaced) this.#channel?.postMessage("signed out");
      return user;
    };
    return this.#patiently(options, () => this.#alone(begin));
  }

  /**
   * End this session. The tokens are deleted, whatever the response is; a cookie only if it is a success.
   */
  async logout(options) {
    const pair = await this.#current();
    try {
      await this.request("POST", "/auth/logout", undefined, options);
    } finally {
      await this.#alone(() => this.#replace(pair, null));
    }
  }

  /** End all sessions of the user and return their number. */
  async logoutAll(options) {
    const pair = await this.#current();
    const { revoked } = await this.request("POST", "/auth/logout-all", undefined, options);
    await this.#alone(() => this.#replace(pair, null));
    return revoked;
  }

  /** Change the password, which ends the user's other sessions. */
  changePassword(current_password, new_password, options) {
    return this.request("POST", "/auth/password", { current_password, new_password }, options);
  }

  /** Send an e-mail with a link to set a new password, if the identity has an account. */
  forgotPassword(identity, options) {
    return this.#anonymously("/auth/password/forgot", { identity }, options);
  }

  /** Set a new password with the token of an e-mail or of `password_change_required`. It signs nobody in. */
  resetPassword(token, new_password, options) {
    return this.#anonymously("/auth/password/reset", { token, new_password }, options);
  }

  /** Send an e-mail with the `registration_token` for `register`, where the service requires one. */
  beginRegistration(email, options) {
    return this.#anonymously("/auth/registration", { email }, options);
  }

  /** Send an e-mail with a link that verifies the user's address. */
  sendVerification(options) {
    return this.request("POST", "/users/me/email/verification", undefined, options);
  }

  /** Send an e-mail to a new address, which `verifyEmail` sets. Call `reauthenticate` before. */
  changeEmail(email, options) {
    return this.request("POST", "/users/me/email", { email }, options);
  }

  /** Verify an address with the token of an e-mail and return the user. */
  verifyEmail(token, options) {
    return this.request("POST", "/users/me/email/verify", { token }, options);
  }

  /** Return what protects the account: its verified address, factors and tokens. */
  security(options) {
    return this.request("GET", "/users/me/security", undefined, options);
  }

  /** Return the `secret` and the `uri`, to show as a QR code, of an authenticator app. */
  beginTotp(options) {
    return this.request("POST", "/users/me/totp", undefined, options);
  }

  /** Add the authenticator app with a code of it; return recovery codes if it is the first second factor. */
  async confirmTotp(code, options) {
    return (await this.request("POST", "/users/me/totp/confirm", { code }, options)).recovery_codes;
  }

  /** Remove the authenticator app, and with the last factor the recovery codes. */
  removeTotp(options) {
    return this.request("DELETE", "/users/me/totp", undefined, options);
  }

  /** Return new recovery codes; the old ones become invalid. */
  async replaceRecoveryCodes(options) {
    return (await this.request("POST", "/users/me/recovery-codes", undefined, options)).recovery_codes;
  }

  /** Iterate over the user's passkeys. */
  passkeys(options) {
    return this.paginate("/users/me/passkeys", options);
  }

  /** Create a passkey on this device and return it; the first factor has `recovery_codes`, shown once. */
  async addPasskey(name, options) {
    const publicKey = await this.request("POST", "/users/me/passkeys/options", undefined, options);
    const credential = await createPasskey(publicKey, options);
    return this.request("POST", "/users/me/passkeys", { name, credential }, options);
  }

  removePasskey(id, options) {
    return this.request("DELETE", `/users/me/passkeys/${id}`, undefined, options);
  }

  /**
   * Prove `{ password }` again after a 403 `reauthentication_required`; then repeat that request.
   * A user with a second factor proves `{ password, code }`. The session gets new tokens, as by a refresh.
   */
  reauthenticate(proof, options) {
    return this.#authorized(options, (access) => {
      const rotation = this.#alone(async () => {
        const signal = rotationSignal();
        const body = this.#withCookie(proof);
        const fresh = await this.#send("POST", "/auth/reauthenticate", body, { access, signal });
        await this.#replace(fresh, fresh);
      });
      return abortable(rotation, options?.signal);
    });
  }

  /** Prove a passkey after a 403 `reauthentication_required`, as `reauthenticate` does. */
  async reauthenticateWithPasskey(options) {
    const publicKey = await this.#anonymously("/auth/passkey/options", {}, options);
    return this.reauthenticate({ credential: await getPasskey(publicKey, options) }, options);
  }

  /** Iterate over the user's active sessions. */
  sessions(options) {
    return this.paginate("/auth/sessions", options);
  }

  endSession(id, options) {
    return this.request("DELETE", `/auth/sessions/${id}`, undefined, options);
  }

  /** Iterate over the events of the account, newest first. */
  events(options) {
    return this.paginate("/auth/events", options);
  }

  /** Iterate over the rows of all pages of a list. */
  async *paginate(path, options) {
    for (let next = path; next; ) {
      const page = await this.request("GET", next, undefined, options);
      yield* page.results;
      // The query alone, so that no response can direct the token to another host.
      next = page.next && path.split("?")[0] + page.next.slice(page.next.indexOf("?"));
    }
  }

  /**
   * Send a request as the signed-in user. If the token has expired, refresh it and repeat once.
   *
   * The body is JSON or FormData. `options.signal` cancels the request and its waits;
   * `options.onWait` replaces the client's.
   */
  request(method, path, body, options) {
    const signal = options?.signal;
    return this.#authorized(options, (access) => this.#send(method, path, body, { access, signal }));
  }

  async #authorized(options, work) {
    let pair;
    return this.#patiently(options, async () => {
      pair ??= await abortable(this.#current(), options?.signal);
      try {
        return await work(pair?.access_token);
      } catch (error) {
        if (error.status !== 401 || !pair) throw error;
      }
      // The signal does not cancel the refresh itself: its response has the only valid token.
      pair = await abortable(this.refresh(pair), options?.signal);
      return work(pair.access_token);
    });
  }

  /** Return the stored pair. A page gets its first one by the cookie, if there is one. */
  async #current() {
    if (this.#cookie) await (this.#resuming ??= this.#resume());
    return this.store.get();
  }

  async #resume() {
    try {
      await this.#alone(async () => {
        if (await this.store.get()) return;
        await this.store.set(await this.#rotate());
      });
    } catch (error) {
      if (error.status === 401) return; // Nobody is signed in.
      this.#resuming = undefined;
      throw error;
    }
  }

  /** Send the refresh token, of the cookie unless there is a pair, and return the new pair. */
  #rotate(pair) {
    const body = this.#cookie ? {} : { refresh_token: pair.refresh_token };
    return this.#send("POST", "/auth/refresh", body, { signal: rotationSignal() });
  }

  /** Return a body that asks for the refresh token in the cookie, if that is where it is kept. */
  #withCookie(body) {
    return this.#cookie ? { ...body, cookie: true } : body;
  }

  /** Return a newer pair of the same session. Concurrent callers in all tabs share one refresh. */
  refresh(old) {
    return this.#alone(async () => {
      const pair = await this.store.get();
      // Another tab may have signed in as another user, who must not send this request.
      if (!pair || sessionOf(pair) !== sessionOf(old)) throw signedOut();
      if (pair.access_token !== old.access_token) return pair;
      try {
        const fresh = await this.#rotate(pair);
        // A page of another origin may have signed in too, with the same cookie.
        if (sessionOf(fresh) !== sessionOf(old)) throw signedOut();
        await this.#replace(pair, fresh);
        return fresh;
      } catch (error) {
        // The session has ended. After any other error (no network) the token may still be valid.
        if (error.status === 401 && (await this.#replace(pair, null))) this.#onSignedOut();
        throw error;
      }
    });
  }

  /** Replace or delete a stored pair of the same session; return whether it was still stored. */
  async #replace(old, pair) {
    const stored = await this.store.get();
    if (!stored || sessionOf(stored) !== sessionOf(old)) return false;
    if (pair) {
      await this.store.set(pair);
    } else {
      await this.store.clear();
      this.#channel?.postMessage("signed out");
    }
    return true;
  }

  /** Run one call at a time: in all tabs that share the store, otherwise in this client. */
  #alone(work) {
    const locks = globalThis.navigator?.locks;
    if (locks && this.store.name) return locks.request(this.store.name, work);
    const turn = this.#queue.then(work);
    this.#queue = turn.catch(() => {});
    return turn;
  }

  #anonymously(path, body, options) {
    return this.#patiently(options, () => this.#send("POST", path, body, options));
  }

  /** Repeat the work while the service asks to wait, and a few times where a proxy lost a request. */
  async #patiently({ signal, onWait = this.#onWait } = {}, work) {
    for (let remaining = this.#maximumWait, repeats = 0; ; repeats++) {
      let seconds;
      try {
        return await work();
      } catch (error) {
        const backoff = error.isRepeatable && repeats < REPEATS ? 2 ** repeats / 2 : Infinity;
        seconds = error.retryAfter ?? backoff;
        if (!(seconds <= remaining)) throw error;
      }
      remaining -= seconds;
      await sleep(seconds, signal, onWait);
    }
  }

  async #send(method, path, body, { access, signal } = {}) {
    const headers = access ? { Authorization: `Bearer ${access}` } : {};
    const isForm = body instanceof FormData; // fetch adds the boundary to the content type
    if (body !== undefined && !isForm) headers["Content-Type"] = "application/json";
    const response = await fetch(this.base + path, {
      method,
      headers,
      body: isForm ? body : JSON.stringify(body),
      signal,
      // Only these routes use the cookie, and only there the service allows credentials to other origins.
      credentials: this.#cookie && path.startsWith("/auth/") ? "include" : undefined,
    });
    const content = parse((await response.text()) || "null");
    if (response.ok && content !== undefined) return content;
    throw errorOf(method, response, content?.code ? content : {}); // A proxy's page is no problem document.
  }
}

/** Return the error of a response, which states whether the request may be sent again. */
function errorOf(method, response, problem) {
  const isOwn = ["rate_limited", "service_unavailable"].includes(problem.code);
  // The service did not process the request, so any method may be repeated.
  const isUndone = isOwn && [429, 503].includes(response.status);
  const retryAfter = (isUndone && Number(response.headers.get("Retry-After"))) || undefined;
  // A proxy does not know whether the request was processed.
  const isRepeatable = [502, 504].includes(response.status) && IDEMPOTENT.includes(method);
  return new ApiError(response.status, problem, { retryAfter, isRepeatable });
}

function signedOut() {
  return new ApiError(401, { code: "token_not_valid", detail: "Signed out." });
}

/** Return a signal for a request that replaces the refresh token, if the platform has timeouts. */
function rotationSignal() {
  return AbortSignal.timeout?.(ROTATION_TIMEOUT * 1000);
}

/** Return the identifier of the session that a pair belongs to. */
function sessionOf(pair) {
  const payload = pair?.access_token.split(".")[1];
  return payload && JSON.parse(atob(payload.replaceAll("-", "+").replaceAll("_", "/"))).sid;
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Settle as the promise does, or reject when the signal is aborted. */
function abortable(promise, signal) {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason ?? new Error("aborted"));
    promise.then(resolve, reject).finally(() => signal?.removeEventListener("abort", abort));
    signal?.addEventListener("abort", abort);
    if (signal?.aborted) abort();
  });
}

async function sleep(seconds, signal, onWait) {
  let timer;
  onWait(seconds);
  try {
    await abortable(new Promise((resolve) => (timer = setTimeout(resolve, seconds * 1000))), signal);
  } finally {
    clearTimeout(timer);
    onWait(0);
  }
}

/** Let the browser create a passkey, and return its credential as JSON. */
async function createPasskey({ user, challenge, excludeCredentials, ...rest }, { signal } = {}) {
  const publicKey = {
    ...rest,
    user: { ...user, id: bytesOf(user.id) },
    challenge: bytesOf(challenge),
    excludeCredentials: excludeCredentials.map(descriptorOf),
  };
  return jsonOf(await navigator.credentials.create({ publicKey, signal }));
}

/**
 * Let the browser use a passkey, and return its credential as JSON. An offer in a field may last longer
 * than its challenge; the result is then null.
 */
async function getPasskey({ challenge, allowCredentials = [], ...rest }, { mediation, signal } = {}) {
  const publicKey = { ...rest, challenge: bytesOf(challenge), allowCredentials: allowCredentials.map(descriptorOf) };
  const controller = new AbortController();
  const cancel = () => controller.abort(signal.reason);
  signal?.addEventListener("abort", cancel);
  if (signal?.aborted) cancel();
  let hasExpired = false;
  const expire = () => {
    hasExpired = true;
    controller.abort();
  };
  // Browsers observe the timeout of a dialog, and not that of an offer in a field.
  const timer = mediation === "conditional" ? setTimeout(expire, rest.timeout * 0.8) : undefined;
  try {
    return jsonOf(await navigator.credentials.get({ publicKey, mediation, signal: controller.signal }));
  } catch (error) {
    if (hasExpired) return null;
    throw error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", cancel);
  }
}

// Not every browser has PublicKeyCredential.parse…FromJSON, and not every password manager has toJSON.

function descriptorOf({ id, ...rest }) {
  return { ...rest, id: bytesOf(id) };
}

function jsonOf({ id, rawId, type, authenticatorAttachment, response }) {
  const names = ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"];
  const given = names.filter((name) => response[name]);
  const texts = Object.fromEntries(given.map((name) => [name, textOf(response[name])]));
  const transports = response.getTransports?.();
  return { id, rawId: textOf(rawId), type, authenticatorAttachment, response: { ...texts, transports } };
}

/** Decode base64url. */
function bytesOf(text) {
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

function textOf(buffer) {
  const binary = String.fromCharCode(...new Uint8Array(buffer));
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
