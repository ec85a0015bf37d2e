// The types of latchkey.js. `manage.py clienttypes` writes those of the API into schema.d.ts.

import type {
  AuthenticationCredentialRequest,
  Event,
  NewPasskey,
  Passkey,
  Problem,
  PublicKeyCredentialRequestOptionsJSON,
  RegistrationRequest,
  Routes,
  Session,
  TokenPair,
  User,
} from "./schema.js";

export interface Store {
  /** All tabs with a store of this name share its tokens. */
  readonly name?: string;
  get(): Promise<TokenPair | null>;
  set(pair: TokenPair): Promise<unknown>;
  clear(): Promise<unknown>;
}

export interface Options {
  store?: Store;
  /** Keep the refresh token in a cookie; the service needs REFRESH_COOKIE. */
  cookie?: boolean;
  onSignedOut?: () => void;
  /** Called with the seconds when a wait begins, and with 0 when it ends. */
  onWait?: (seconds: number) => void;
  /** The seconds that one call waits in total; 60 by default. */
  maximumWait?: number;
}

export interface CallOptions {
  signal?: AbortSignal;
  onWait?: (seconds: number) => void;
}

export interface PasskeyOptions extends CallOptions {
  /** Offer the passkeys in a field with `autocomplete="username webauthn"`. */
  mediation?: "conditional";
}

export type SecondFactor = { code: string } | { credential: AuthenticationCredentialRequest };
export type Proof = { password: string; code?: string } | { credential: AuthenticationCredentialRequest };

export type Method = "GET" | "HEAD" | "OPTIONS" | "POST" | "PUT" | "PATCH" | "DELETE";

/** "GET /users/{id}" as `GET /users/${string}`. */
type Pattern<Key> = Key extends `${infer Head}{${string}}${infer Tail}` ? `${Head}${string}${Pattern<Tail>}` : Key;
type Matching<Route extends string> = { [Key in keyof Routes]: Route extends Pattern<Key> ? Routes[Key] : never }[keyof Routes];
type Find<Route extends string> = Route extends `${infer Path}?${string}`
  ? Find<Path>
  : Route extends keyof Routes
    ? Routes[Route]
    : Matching<Route>;

/** The response of a request, such as `ResponseOf<"GET /users/me">`. */
export type ResponseOf<Route extends string> = Find<Route> extends { response: infer Response } ? Response : never;
type Arguments<Found> = [Found] extends [never]
  ? [route: never]
  : Found extends { body: infer Body }
    ? [body: Body | FormData, options?: CallOptions]
    : [body?: undefined, options?: CallOptions];
type Row<Path extends string> = ResponseOf<`GET ${Path}`> extends { results: Array<infer Item> } ? Item : never;

export class ApiError extends Error {
  readonly status: number;
  readonly code: string | undefined;
  /** `mfa_required` and `reauthentication_required` have `methods`. */
  readonly problem: Partial<Problem> & {
    mfa_token?: string;
    methods?: string[];
    passkey_options?: PublicKeyCredentialRequestOptionsJSON;
    reset_token?: string;
  };
  readonly retryAfter: number | undefined;
  readonly isRepeatable: boolean;
}

export function indexedDBStore(name?: string): Store;
export function memoryStore(): Store;
export function sharedMemoryStore(name?: string): Store;

export class Latchkey {
  constructor(base: string, options?: Options);
  readonly base: string;
  readonly store: Store;
  register(user: RegistrationRequest, options?: CallOptions): Promise<User>;
  login(identity: string, password: string, options?: CallOptions): Promise<User>;
  loginWithPasskey(options?: PasskeyOptions): Promise<User>;
  completeLogin(mfaToken: string, proof: SecondFactor, options?: CallOptions): Promise<User>;
  completeLoginWithPasskey(problem: ApiError["problem"], options?: CallOptions): Promise<User>;
  logout(options?: CallOptions): Promise<void>;
  logoutAll(options?: CallOptions): Promise<number>;
  changePassword(currentPassword: string, newPassword: string, options?: CallOptions): Promise<null>;
  forgotPassword(identity: string, options?: CallOptions): Promise<unknown>;
  resetPassword(token: string, newPassword: string, options?: CallOptions): Promise<null>;
  beginRegistration(email: string, options?: CallOptions): Promise<unknown>;
  sendVerification(options?: CallOptions): Promise<unknown>;
  changeEmail(email: string, options?: CallOptions): Promise<unknown>;
  verifyEmail(token: string, options?: CallOptions): Promise<User>;
  security(options?: CallOptions): Promise<ResponseOf<"GET /users/me/security">>;
  beginTotp(options?: CallOptions): Promise<ResponseOf<"POST /users/me/totp">>;
  confirmTotp(code: string, options?: CallOptions): Promise<string[] | null>;
  removeTotp(options?: CallOptions): Promise<null>;
  replaceRecoveryCodes(options?: CallOptions): Promise<string[]>;
  passkeys(options?: CallOptions): AsyncGenerator<Passkey>;
  addPasskey(name: string, options?: CallOptions): Promise<NewPasskey>;
  removePasskey(id: string, options?: CallOptions): Promise<null>;
  reauthenticate(proof: Proof, options?: CallOptions): Promise<void>;
  reauthenticateWithPasskey(options?: CallOptions): Promise<void>;
  sessions(options?: CallOptions): AsyncGenerator<Session>;
  endSession(id: string, options?: CallOptions): Promise<null>;
  events(options?: CallOptions): AsyncGenerator<Event>;
  paginate<Path extends string>(path: Path, options?: CallOptions): AsyncGenerator<Row<Path>>;
  request<Verb extends Method, Path extends string>(
    method: Verb,
    path: Path,
    ...rest: Arguments<Find<`${Verb} ${Path}`>>
  ): Promise<ResponseOf<`${Verb} ${Path}`>>;
  refresh(old: TokenPair): Promise<TokenPair>;
}
