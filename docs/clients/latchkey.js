// A Latchkey client for browsers and Node. It stores the tokens, refreshes expired ones, shares one
// refresh among all tabs, and waits for rate limits.
//
//   const api = new Latchkey("https://api.example.com/api/v1");
//   await api.login("alice", "a sunny day in May");
//   const me = await api.request("GET", "/users/me");

const MAXIMUM_WAIT = 60; // seconds to wait for rate limits and a busy service, in total
const IDEMPOTENT = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"];
const REPEATS = 3; // of an idempotent request after a 502 or 504

/** An error response. `problem` is the problem document, or empty. Clients act on `code`. */
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `status ${status}`);
    this.status = status;
    this.code = problem.code;
    this.problem = problem;
  }
}

/** Store tokens for all tabs, so that each tab uses the refreshed ones. */
export function browserStore(name = "latchkey") {
  return {
    get: () => JSON.parse(localStorage.getItem(name) ?? "null"),
    set: (pair) => (pair ? localStorage.setItem(name, JSON.stringify(pair)) : localStorage.removeItem(name)),
  };
}

export function memoryStore() {
  let stored = null;
  return { get: () => stored, set: (pair) => (stored = pair) };
}

export class Latchkey {
  /** A store may be asynchronous: its `get` and `set` may return promises. */
  constructor(base, { store = memoryStore(), onSignedOut = () => {} } = {}) {
    this.base = base;
    this.store = store;
    this.onSignedOut = onSignedOut;
    this.queue = Promise.resolve();
  }

  async login(identity, password) {
    const { user, ...pair } = await this.send("POST", "/auth/login", { identity, password });
    await this.store.set(pair);
    return user;
  }

  async logout() {
    const pair = await this.store.get();
    try {
      await this.request("POST", "/auth/logout");
    } finally {
      await this.replace(pair, null);
    }
  }

  /** Send a request as the signed-in user. If the token has expired, refresh it and repeat once. */
  async request(method, path, body) {
    const pair = await this.store.get();
    try {
      return await this.send(method, path, body, pair?.access_token);
    } catch (error) {
      if (error.status !== 401 || !pair) throw error;
    }
    const { access_token } = await this.refresh(pair);
    return this.send(method, path, body, access_token);
  }

  /** Return a newer pair of the same session. Concurrent callers in all tabs share one refresh. */
  refresh(old) {
    return this.alone(async () => {
      const pair = await this.store.get();
      // Another tab may have signed in as another user, who must not send this request.
      if (!pair || sessionOf(pair) !== sessionOf(old)) {
        throw new ApiError(401, { code: "token_not_valid", detail: "Signed out." });
      }
      if (pair.access_token !== old.access_token) return pair;
      try {
        const fresh = await this.send("POST", "/auth/refresh", { refresh_token: pair.refresh_token });
        await this.replace(pair, fresh);
        return fresh;
      } catch (error) {
        // The session has ended. After any other error (no network) the token may still be valid.
        if (error.status === 401 && (await this.replace(pair, null))) this.onSignedOut();
        throw error;
      }
    });
  }

  /** Replace a stored pair of the same session; return whether it was still stored. */
  async replace(old, pair) {
    const isSame = sessionOf(await this.store.get()) === sessionOf(old);
    if (isSame) await this.store.set(pair);
    return isSame;
  }

  /** Run one call at a time: in all tabs with the browser's locks, otherwise in this client. */
  alone(work) {
    const locks = globalThis.navigator?.locks;
    if (locks) return locks.request("latchkey-refresh", work);
    const turn = this.queue.then(work);
    this.queue = turn.catch(() => {});
    return turn;
  }

  async send(method, path, body, access) {
    for (let remaining_wait = MAXIMUM_WAIT, repeats = 0; ; repeats++) {
      const headers = body === undefined ? {} : { "Content-Type": "application/json" };
      if (access) headers.Authorization = `Bearer ${access}`;
      const response = await fetch(this.base + path, {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
      });
      const content = parse((await response.text()) || "null");
      if (response.ok && content !== undefined) return content;
      const problem = content?.code ? content : {}; // A proxy's error page is no problem document.
      const wait = secondsToWait(method, response, problem, repeats);
      if (!(wait <= remaining_wait)) throw new ApiError(response.status, problem);
      remaining_wait -= wait;
      await new Promise((resolve) => setTimeout(resolve, wait * 1000));
    }
  }
}

/** Return the seconds until a request may be sent again, or Infinity if it must not be. */
function secondsToWait(method, response, problem, repeats) {
  const isOwn = ["rate_limited", "service_unavailable"].includes(problem.code);
  if (isOwn && [429, 503].includes(response.status)) {
    // The service did not process the request, so any method may be repeated.
    return Number(response.headers.get("Retry-After")) || Infinity;
  }
  // A proxy does not know whether the request was processed.
  const mayRepeat = [502, 504].includes(response.status) && IDEMPOTENT.includes(method);
  return mayRepeat && repeats < REPEATS ? 2 ** repeats / 2 : Infinity;
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
