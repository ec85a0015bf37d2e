// A client of Latchkey for browsers and Node: it keeps the tokens, refreshes them when they are over,
// shares one refresh among all tabs, and waits where it is told to.
//
//   const api = new Latchkey("https://api.example.com/api/v1");
//   await api.login("alice", "a sunny day in May");
//   const lamp = await api.request("POST", "/product", { title: "Lamp", amount: 3 });

const PATIENCE = 60; // seconds to wait for limits and busy moments, in all, before giving up

/** A refusal: `problem` is the service's document, `code` is what to act on. */
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `status ${status}`);
    this.status = status;
    this.code = problem.code;
    this.problem = problem;
  }
}

/** Where tokens are kept: one place for all tabs, so that a tab sees what another refreshed. */
export function browserStore(name = "latchkey") {
  return {
    get: () => JSON.parse(localStorage.getItem(name) ?? "null"),
    set: (pair) => (pair ? localStorage.setItem(name, JSON.stringify(pair)) : localStorage.removeItem(name)),
  };
}

export function memoryStore() {
  let kept = null;
  return { get: () => kept, set: (pair) => (kept = pair) };
}

export class Latchkey {
  constructor(base, { store = memoryStore(), onSignedOut = () => {} } = {}) {
    this.base = base;
    this.store = store;
    this.onSignedOut = onSignedOut;
    this.queue = Promise.resolve();
  }

  async login(identity, password) {
    const { user, ...pair } = await this.send("POST", "/auth/login", { identity, password });
    this.store.set(pair);
    return user;
  }

  async logout() {
    try {
      await this.request("POST", "/auth/logout");
    } finally {
      this.store.set(null);
    }
  }

  /** Ask as whoever is signed in, and once more with a fresh token where that one is over. */
  async request(method, path, body) {
    const access = this.store.get()?.access_token;
    try {
      return await this.send(method, path, body, access);
    } catch (error) {
      if (error.status !== 401 || !access) throw error;
    }
    return this.send(method, path, body, await this.refresh(access));
  }

  /** Return a token newer than `old`; of all that ask at once, in every tab, one refreshes. */
  refresh(old) {
    return this.alone(async () => {
      const pair = this.store.get();
      if (!pair) throw new ApiError(401, { code: "token_not_valid", detail: "Signed out." });
      if (pair.access_token !== old) return pair.access_token;
      try {
        const fresh = await this.send("POST", "/auth/refresh", { refresh_token: pair.refresh_token });
        this.store.set(fresh);
        return fresh.access_token;
      } catch (error) {
        // Over, or ended elsewhere. Anything else (no network) may pass: the token is kept.
        if (error.status === 401) {
          this.store.set(null);
          this.onSignedOut();
        }
        throw error;
      }
    });
  }

  /** Run one at a time: among tabs by the browser's locks, else among this client's calls. */
  alone(work) {
    const locks = globalThis.navigator?.locks;
    if (locks) return locks.request("latchkey-refresh", work);
    const turn = this.queue.then(work);
    this.queue = turn.catch(() => {});
    return turn;
  }

  async send(method, path, body, access) {
    for (let patience = PATIENCE; ; ) {
      const headers = body === undefined ? {} : { "Content-Type": "application/json" };
      if (access) headers.Authorization = `Bearer ${access}`;
      const response = await fetch(this.base + path, {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
      });
      // 429 and 503 did nothing yet, so any method may be sent again, when the service says.
      const wait = Number(response.headers.get("Retry-After") ?? 0);
      if ([429, 503].includes(response.status) && wait > 0 && wait <= patience) {
        patience -= wait;
        await new Promise((resolve) => setTimeout(resolve, wait * 1000));
        continue;
      }
      const text = await response.text();
      const answer = text ? JSON.parse(text) : null;
      if (!response.ok) throw new ApiError(response.status, answer ?? {});
      return answer;
    }
  }
}
