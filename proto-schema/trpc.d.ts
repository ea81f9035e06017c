// The procedures of Purser, for @trpc/client 11.4 or newer (needs the same @trpc/server beside it, for its types only).
// With an older one the types are silently `any`.
// Made of the procedure table; a running Purser serves its own at /api/trpc.d.ts. Do not edit.
//
//   import { createTRPCClient, httpBatchLink } from "@trpc/client";
//   import type { AppRouter } from "./trpc";
//   const purser = createTRPCClient<AppRouter>({ links: [httpBatchLink({ url, headers: { "x-api-key": key } })] });

import type {
  TRPCBuiltRouter,
  TRPCMutationProcedure,
  TRPCQueryProcedure,
  TRPCSubscriptionProcedure,
} from "@trpc/server";

/** Purser for clients whose links have no transformer. */
export type AppRouter = Router<false>;

/** Purser for clients whose links have `transformer: superjson`. */
export type SuperjsonAppRouter = Router<true>;

/** An event of a subscription. Its id is the `lastEventId` of whoever comes back. */
export type Tracked<Data> = { id: string; data: Data };

/** A failure, as every procedure may answer it. */
export type ErrorShape = {
  /** For people: what happened and what to do next. */
  message: string;
  /** The code's number in JSON-RPC. */
  code: number;
  /** For programs. */
  data: ErrorData;
};

/** Anything that JSON can say. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

type Router<Transformer extends boolean> = TRPCBuiltRouter<
  { ctx: object; meta: object; errorShape: ErrorShape; transformer: Transformer },
  Procedures
>;

type Query<Input, Output> = TRPCQueryProcedure<{ meta: object; input: Input; output: Output }>;

type Mutation<Input, Output> = TRPCMutationProcedure<{ meta: object; input: Input; output: Output }>;

type Subscription<Input, Event> = TRPCSubscriptionProcedure<{
  meta: object;
  input: Input;
  output: AsyncIterable<Tracked<Event>>;
}>;

/** Every procedure, by its name. */
export type Procedures = {
  registry: {
    /**
     * Stores a registry entry, its password encrypted. The credential is not tested unless `test` is true, which
     * needs `registry:test`, too; then a failed test stores nothing.
     */
    create: Mutation<RegistryCreateInput, Registry>;
    /** All registry entries of the organization, oldest first. Passwords are never returned. */
    all: Query<NoInput | undefined, Registry[]>;
    /** One registry entry of the organization, without its password. */
    one: Query<RegistryOneInput, Registry>;
    /**
     * Changes a registry entry. An absent field stays, null clears a nullable one. Another host in
     * `registryUrl`, `insecure` turned on, another `caCertificate` and a host added to `realmAllow` need the
     * `password` in the same call: a secret goes only to where it was entered for, and only as safely. With
     * `test` it needs `registry:test`, too.
     */
    update: Mutation<RegistryUpdateInput, Registry>;
    /** Removes a registry entry. CONFLICT while jobs under way use it, listed in `data.usedBy`, unless `force`. */
    remove: Mutation<RegistryRemoveInput, Registry>;
    /**
     * Tests a connection and its credentials without storing them: from the control plane, or with `serverId`
     * from that Docker host.
     */
    testRegistry: Mutation<TestRegistryInput, TestResult>;
    /** Tests a stored entry: from the control plane, or with `serverId` from that Docker host. */
    testRegistryById: Mutation<TestRegistryByIdInput, TestResult>;
    /** Which entry an image is pulled with, and what became of each other entry. Asks no registry. */
    match: Query<RegistryMatchInput, RegistryMatchResult>;
    /**
     * The repositories of a registry, within the entry's namespace, page by page. What a registry answered is
     * remembered for 5 minutes. NOT_IMPLEMENTED where a registry lists none, with what to do instead.
     */
    catalog: Query<RegistryCatalogInput, NamePage>;
    /** The tags of a repository, page by page. */
    tags: Query<RegistryTagsInput, NamePage>;
    /**
     * Finds repositories by a part of their name: at one registry, or at all of the organization's side by side,
     * where one that fails is an item of `errors`.
     */
    search: Query<RegistrySearchInput, SearchAnswer>;
    /**
     * What an image is: digest, platforms, sizes, labels, attachments. Either `image`, for which the entry is
     * found as by `image.pull`, or `registryId` with `repository` and `reference`. Without an entry only
     * registries that are publicly known are asked. Counts as a pull at Docker Hub.
     */
    manifest: Query<RegistryManifestInput | undefined, Manifest>;
    /** How many pulls Docker Hub still allows. NOT_IMPLEMENTED for every other registry. */
    rateLimit: Query<RegistryRateLimitInput, PullAllowance>;
    /**
     * Each change of a registry entry, from now on or after `lastEventId`: an organization's newest 10,000 are
     * kept for those who lost the stream. PRECONDITION_FAILED where more is missing: read `registry.all`, and
     * subscribe without it.
     */
    events: Subscription<RegistryEventsInput | undefined, RegistryEvent>;
    /** The kinds of registries that are known, with what a form may propose for each. */
    presets: Query<NoInput | undefined, RegistryPreset[]>;
  };
  server: {
    /**
     * Makes a server and its first join token. The token is shown once, works once, and expires after 15
     * minutes.
     */
    create: Mutation<ServerCreateInput, JoinableServer>;
    /** All servers of the organization, oldest first. */
    all: Query<NoInput | undefined, Server[]>;
    /** One server of the organization, with where it stands now. */
    one: Query<ServerOneInput, Server>;
    /** Changes a server's name, description or labels. An absent field stays, null clears. */
    update: Mutation<ServerUpdateInput, Server>;
    /** Removes a server: its agent is cut off and refused from now on, its jobs end as cancelled. */
    remove: Mutation<ServerOneInput, Server>;
    /**
     * A new join token for a server. The agent that joins with it replaces the present one, whose key is refused
     * from then on. Earlier tokens of the server stop working.
     */
    createJoinToken: Mutation<ServerOneInput, JoinableServer>;
  };
  image: {
    /**
     * Pulls an image onto one host or several. The credential is `auth`, else the entry that `registryId` names,
     * else the entry whose namespace or host fits best, else the default for names without a registry, else
     * none; the job says which. What may heal by itself (the network, a registry's 5xx, a rate limit) is tried
     * up to three times.
     */
    pull: Mutation<ImagePullInput, Job>;
    /** Pushes a local image of a host to a registry entry, under the entry's prefix. */
    push: Mutation<ImagePushInput, Job>;
    /** The images on a host, as its engine lists them now. */
    all: Query<ImageAllInput, HostImage[]>;
  };
  stack: {
    /**
     * The images of a Compose file, each with the entry that it would be pulled with, and the services that need
     * no pull.
     */
    images: Query<StackImagesInput, StackImages>;
    /**
     * Pulls the images of a Compose file onto one host or several: one target per host and image, an image that
     * several services share once. The credential of each is found as by `image.pull`; one that is refused fails
     * its own targets only. The services that need no pull are in the job's request, and why.
     */
    pull: Mutation<StackPullInput, Job>;
  };
  job: {
    /** One job with the live progress of its targets. */
    one: Query<JobOneInput, Job>;
    /** Jobs, newest first, a page at a time. */
    all: Query<JobAllInput | undefined, JobPage>;
    /**
     * Repeats the failed targets of an ended job, and those that `failFast` held back, with the entry's newest
     * credential: the same job, with one more attempt each. Needs the permission of what it repeats, too.
     */
    retry: Mutation<JobOneInput, Job>;
    /** Cancels what has not ended: queued targets at once, running ones when the engine has stopped. */
    cancel: Mutation<JobOneInput, Job>;
    /**
     * The job as it is now, then as it becomes, at most five times a second. A slow reader is told the newest
     * and not everything between. Ends after the job has: the last one told is final.
     */
    watch: Subscription<JobWatchInput, Job>;
  };
  organization: {
    /** Creates an organization. Its first key is made by `apiKey.create` with its `organizationId`. */
    create: Mutation<OrganizationCreateInput, Organization>;
    /** The organizations that the key sees, oldest first: its own, and with an instance-admin key all. */
    all: Query<NoInput | undefined, Organization[]>;
    /** One organization: the key's own, and with an instance-admin key any. */
    one: Query<OrganizationOneInput, Organization>;
    /** Renames an organization: the key's own, and with an instance-admin key any. */
    update: Mutation<OrganizationUpdateInput, Organization>;
  };
  apiKey: {
    /**
     * Creates an API key and shows it once. It may do no more and last no longer than the key that makes it, and
     * its rate limit is no wider. That limit is its own: what it calls is not counted against the key that makes
     * it.
     */
    create: Mutation<ApiKeyCreateInput, CreatedApiKey>;
    /** The API keys of the organization, oldest first, expired ones included. */
    all: Query<NoInput | undefined, ApiKey[]>;
    /**
     * Removes an API key. It stops at once, and what it holds open ends. A key may remove itself. CONFLICT for
     * the last valid key of the organization with the role `admin`; FORBIDDEN for an instance-admin key, except
     * to another one.
     */
    remove: Mutation<ApiKeyRemoveInput, ApiKey>;
  };
  audit: {
    /**
     * What happened in the organization, newest first, a page at a time: every change, every use of a
     * credential, every key of the organization that was refused, every agent that joined or was not let in. An
     * event is in the organization that it changes, whichever key did it. With `instance`, which needs
     * `instance:admin`, what belongs to none: organizations that were made, keys that nobody has, agents that
     * nobody knows. `GET /api/audit.jsonl` takes the same filters as query parameters and gives all of it, one
     * JSON object a line.
     */
    all: Query<AuditAllInput | undefined, AuditPage>;
  };
};

/** What a test may try beyond logging in. */
export type Access =
  /** May an image be pulled from `repository`? */
  | "pull"
  /** May an image be pushed to `repository`? Starts an upload there and deletes it. */
  | "push";

/** One access or several: `"pull"` and `["pull", "push"]` are both accepted. */
export type AccessList =
  /** One. */
  | Access
  /** Several. */
  | Access[];

/** Which access to one repository was proven. null: not asked, or the registry's answer was inconclusive. */
export type AccessVerdict = {
  /** Whether manifests may be read. */
  pull?: boolean;
  /** Whether uploads may be begun. */
  push?: boolean;
};

/** An API key as callers see it. */
export type ApiKey = {
  /** Its id. */
  apiKeyId: ApiKeyId;
  /** When it was made. */
  createdAt: string;
  /** When it stops working; null for never. */
  expiresAt: string | null;
  /** When it was last used, to the minute; null for never. */
  lastUsedAt: string | null;
  /** Its name for people. */
  name: string;
  /** The organization that it acts in. */
  organizationId: OrganizationId;
  /** Its permissions; null where it has a role. */
  permissions: Permission[] | null;
  /** How the key begins, to recognize it by; `chosen` for one that the operator chose. */
  prefix: string;
  /** How often it may call; null for any number. */
  rateLimit: RateLimit | null;
  /** Its role; null where it has permissions of its own. */
  role: Role | null;
};

/** Input of `apiKey.create`. Either `role` or `permissions`. */
export type ApiKeyCreateInput = {
  /** When it stops working; never when absent. */
  expiresAt?: string | null | undefined;
  /** A name for people, 1 to 255 characters. */
  name: string;
  /** In which organization; for instance-admin keys. The key's own when absent. */
  organizationId?: OrganizationId | null | undefined;
  /** Exactly these, such as `["registry:read", "image:pull"]`. */
  permissions?: Permission[] | null | undefined;
  /** How often it may call; any number when absent. */
  rateLimit?: RateLimit | null | undefined;
  /** `admin`, `deployer` or `viewer`. */
  role?: Role | null | undefined;
};

/**
 * An API key.
 *
 * Opaque: `key_…`.
 */
export type ApiKeyId = string;

/** Input of `apiKey.remove`. */
export type ApiKeyRemoveInput = {
  /** Which key. */
  apiKeyId: ApiKeyId;
};

/**
 * What is attached to an image. It is there, which says nothing about whether it is any good: signatures aren't
 * verified here. null is unknown: the registry didn't tell, or there was no time.
 */
export type Attachments = {
  /** Whether there is an attestation (buildkit's, cosign's, in-toto or an SBOM). */
  attested: boolean | null;
  /** What the registry lists as attached, at most 50. */
  referrers: Referrer[];
  /** Whether there is a signature (cosign, Sigstore bundle or Notary). */
  signed: boolean | null;
};

/** Input of `audit.all`. Filters join: an event fits all of them. */
export type AuditAllInput = {
  /** Only this action. */
  action?: string | null | undefined;
  /** Only by this key. */
  apiKeyId?: ApiKeyId | null | undefined;
  /** `nextCursor` of the page before. */
  cursor?: string | null | undefined;
  /** From this moment on. */
  from?: string | null | undefined;
  /** What belongs to no organization, in place of what belongs to the key's own. Needs `instance:admin`. */
  instance?: boolean | null | undefined;
  /** Only of this job. */
  jobId?: JobId | null | undefined;
  /** 1 to 100; 50 when absent. */
  limit?: number | null | undefined;
  /** Only with this outcome. */
  outcome?: string | null | undefined;
  /** Only of this registry entry, which may be gone by now. */
  registryId?: RegistryId | null | undefined;
  /** Only of this server, which may be gone by now. */
  serverId?: ServerId | null | undefined;
  /** Only what made or removed this key. */
  subjectApiKeyId?: ApiKeyId | null | undefined;
  /** Only what made or changed this organization. */
  subjectOrganizationId?: OrganizationId | null | undefined;
  /** Before this moment. */
  to?: string | null | undefined;
};

/** Something that happened. It is written once and never changed. */
export type AuditEvent = {
  /**
   * The procedure that was called; or `key.refused`, `metrics.refused`, `many.refused`, `agent.enrolled`,
   * `agent.refused`.
   */
  action: string;
  /** Who called; null for what an agent or the control plane did by itself. */
  apiKeyId: ApiKeyId | null;
  /** When. */
  at: string;
  /** The id. */
  auditEventId: AuditEventId;
  /** How often it happened. Above 1 it stands for what one source repeated within a minute. */
  count: number;
  /** The job that came of it. */
  jobId: JobId | null;
  /**
   * `ok`, `accepted` for a job that ends later, or why not: an error's code such as `FORBIDDEN`, a diagnosis
   * such as `unauthorized`, of a refused key or agent what was wrong with it.
   */
  outcome: string;
  /** The registry entry that it was about, or whose credential was used. */
  registryId: RegistryId | null;
  /** The `x-request-id` of the request that it came by. */
  requestId: string | null;
  /** The server that it was about. */
  serverId: ServerId | null;
  /** Of what was refused, the network address that it came from: a proxy's, where one is between. */
  source: string | null;
  /** The key that was made or removed; `apiKeyId` is who did it. */
  subjectApiKeyId: ApiKeyId | null;
  /** The organization that was made or changed. */
  subjectOrganizationId: OrganizationId | null;
};

/**
 * An audit event.
 *
 * Opaque: `aud_…`.
 */
export type AuditEventId = string;

/** A page of events. */
export type AuditPage = {
  /** Newest first. */
  items: AuditEvent[];
  /** For the next page; null on the last. */
  nextCursor: string | null;
};

/** How a registry asks for credentials. */
export type AuthScheme =
  /** `/v2/` answered without asking for anything. */
  | "none"
  /** User name and password go to the registry itself. */
  | "basic"
  /** User name and password go to a token server, the token to the registry. */
  | "bearer";

/** What happened to an entry. */
export type Change =
  /** It was made. */
  | "created"
  /** It was changed, or it lost the mark of the default to another one. */
  | "updated"
  /** It was removed. */
  | "removed"
  /** It was tested, and `lastTest` says how that ended. */
  | "tested";

/** A public error code. */
export type Code =
  /** The bytes are not JSON. */
  | "PARSE_ERROR"
  /** The input is wrong, or what it asks for failed for a reason that the caller can mend. */
  | "BAD_REQUEST"
  /** A fault of the server. The message says nothing of the inside; the log does. */
  | "INTERNAL_SERVER_ERROR"
  /** The registry or engine has no such function. */
  | "NOT_IMPLEMENTED"
  /** The server is stopping, its database is away, or it has too much to do. It may pass by itself. */
  | "SERVICE_UNAVAILABLE"
  /** No key, or not a valid one. */
  | "UNAUTHORIZED"
  /** A valid key without the permission. */
  | "FORBIDDEN"
  /** No such id in the caller's organization, or no such procedure. */
  | "NOT_FOUND"
  /** The wrong HTTP method for the procedure. */
  | "METHOD_NOT_SUPPORTED"
  /** Took longer than it may. */
  | "TIMEOUT"
  /** Something else uses it, or changed it meanwhile. */
  | "CONFLICT"
  /** The state of the world does not allow it now, such as a host that is not connected. */
  | "PRECONDITION_FAILED"
  /** The body is over the limit. */
  | "PAYLOAD_TOO_LARGE"
  /** The body is not `application/json`. */
  | "UNSUPPORTED_MEDIA_TYPE"
  /** Over a rate limit. */
  | "TOO_MANY_REQUESTS";

/** The text of a Compose file, at most 512 KiB of UTF-8. */
export type ComposeFile = string;

/** A key that was just made. */
export type CreatedApiKey = {
  /** Its id. */
  apiKeyId: ApiKeyId;
  /** When it was made. */
  createdAt: string;
  /** When it stops working; null for never. */
  expiresAt: string | null;
  /** The key itself, for `x-api-key`. Shown once. */
  key: string;
  /** When it was last used, to the minute; null for never. */
  lastUsedAt: string | null;
  /** Its name for people. */
  name: string;
  /** The organization that it acts in. */
  organizationId: OrganizationId;
  /** Its permissions; null where it has a role. */
  permissions: Permission[] | null;
  /** How the key begins, to recognize it by; `chosen` for one that the operator chose. */
  prefix: string;
  /** How often it may call; null for any number. */
  rateLimit: RateLimit | null;
  /** Its role; null where it has permissions of its own. */
  role: Role | null;
};

/** Which credential a target uses. */
export type CredentialSource =
  /** A stored entry's. */
  | "entry"
  /** One given with the call. */
  | "oneTime"
  /** None. */
  | "anonymous";

/** What became of the credentials. */
export type CredentialsVerdict =
  /** They were sent, and the registry accepted them. */
  | "verified"
  /** The registry never asked for any, so none were sent and nothing is known about them. */
  | "notRequired"
  /** None were given, and the registry let an anonymous caller in. */
  | "anonymous";

/** The stable code of a cause; the strings are part of the API contract. */
export type DiagnosisCode =
  /** The name doesn't resolve, there. */
  | "dns"
  /** Nothing listens, or the connection was cut. */
  | "connect"
  /** The deadline passed. */
  | "timeout"
  /** The certificate was issued by nobody who is trusted. */
  | "tls_unknown_authority"
  /** The certificate is for another name. */
  | "tls_name"
  /** The certificate has expired or isn't valid yet. */
  | "tls_expired"
  /** The port speaks plain HTTP where TLS was expected. */
  | "http_on_https"
  /** Something answers, but not a registry. */
  | "not_a_registry"
  /** Credentials are wrong or missing. */
  | "unauthorized"
  /** Credentials were right once. */
  | "token_expired"
  /** Credentials are right but too weak for what was asked. */
  | "insufficient_scope"
  /** Refused whoever asks, or refused by policy. */
  | "forbidden"
  /** The repository, tag or platform doesn't exist. */
  | "not_found"
  /** Too many requests. */
  | "rate_limited"
  /** The address is one that Purser does not dial. */
  | "egress_denied"
  /** The registry wanted the secret sent to a host that it doesn't belong to. */
  | "realm_denied"
  /** The Docker host isn't connected. */
  | "server_offline"
  /** The Docker Engine itself failed. */
  | "engine_error"
  /** Anything else; the message says what. */
  | "other";

/** The Docker Engine of a host, as its agent reported it. */
export type Engine = {
  /** The newest API version it speaks. */
  apiVersion: string;
  /** Such as `amd64`. */
  arch: string;
  /** `Docker`, or the name of a compatible engine. */
  name: string;
  /** Such as `linux`. */
  os: string;
  /** The engine's version. */
  version: string;
};

/** `error.data` of tRPC and of JSON-RPC alike. */
export type ErrorData = {
  /** The code's name. */
  code: Code;
  /** Present where a registry or an engine refused. */
  diagnosis?: TestDiagnosis;
  /** The code's HTTP status. */
  httpStatus: number;
  /** The procedure called, where the call got as far as one. */
  path?: string;
  /** Present where the same call may succeed later without anybody's doing: in how many seconds to try again. */
  retryAfter?: number;
  /** Present where something is still used. */
  usedBy?: UsedBy;
  /** Present for malformed input only. */
  zodError?: ZodError;
};

/** The id that an event of a subscription was told with. Opaque. */
export type EventId = string;

/** An image on a host. */
export type HostImage = {
  /** When it was built. */
  createdAt: string;
  /** Its names with digests. */
  digests: string[];
  /** The engine's id of it: `sha256:…`. */
  imageId: string;
  /** Its size on the host. */
  sizeBytes: number;
  /** Its names with tags. */
  tags: string[];
};

/** Input of `image.all`. */
export type ImageAllInput = {
  /** Which host. */
  serverId: ServerId;
};

/** Input of `image.pull`. Exactly one of `serverId`, `serverIds` and `labels` is needed. */
export type ImagePullInput = {
  /** With this credential. */
  auth?: OneTimeAuth | null | undefined;
  /** After the first failure, cancel what has not started. */
  failFast?: boolean | null | undefined;
  /** A reference as Docker takes it. No tag means `latest`, never all tags. */
  image: string;
  /** Onto every host that has all of these labels. */
  labels?: { [key: string]: string } | null | undefined;
  /** How many hosts at once, 1 to 10000; all when absent. */
  maxParallel?: number | null | undefined;
  /** Such as `linux/arm64`; the host's own when absent. */
  platform?: string | null | undefined;
  /** How long a target may wait for its host, in seconds, at most a week; 15 minutes when absent. */
  queueTimeoutSeconds?: number | null | undefined;
  /** With this entry's credential; its host must be the image's. */
  registryId?: RegistryId | null | undefined;
  /** Onto this host. */
  serverId?: ServerId | null | undefined;
  /** Onto these hosts, at most 10000. */
  serverIds?: ServerId[] | null | undefined;
  /** How long it may go on without progress, in seconds, at most a day; 10 minutes when absent. */
  stallTimeoutSeconds?: number | null | undefined;
  /** How long it may run in all, in seconds, at most a day; an hour when absent. */
  timeoutSeconds?: number | null | undefined;
  /** Answer when the job has ended, or after 15 minutes. */
  wait?: boolean | null | undefined;
};

/** Input of `image.push`. */
export type ImagePushInput = {
  /** A local image of the host. */
  image: string;
  /** How long a target may wait for its host, in seconds, at most a week; 15 minutes when absent. */
  queueTimeoutSeconds?: number | null | undefined;
  /** To this entry. */
  registryId: RegistryId;
  /** The repository below the registry's host, in place of the computed one. */
  repository?: string | null | undefined;
  /** From this host. */
  serverId: ServerId;
  /** How long it may go on without progress, in seconds, at most a day; 10 minutes when absent. */
  stallTimeoutSeconds?: number | null | undefined;
  /** The tag, in place of the image's own. */
  tag?: string | null | undefined;
  /** How long it may run in all, in seconds, at most a day; an hour when absent. */
  timeoutSeconds?: number | null | undefined;
  /** Answer when the job has ended, or after 15 minutes. */
  wait?: boolean | null | undefined;
};

/** A job as callers see it. */
export type Job = {
  /** When it was accepted. */
  createdAt: string;
  /** The key that asked for it. */
  createdBy: ApiKeyId;
  /** When the last target ended. */
  finishedAt: string | null;
  /** Its id. */
  jobId: JobId;
  /** What it does. */
  kind: JobKind;
  /** What was asked, without secrets; of a stack pull the images, and the services that need none. */
  request: { [key: string]: Json };
  /** When the first target started. */
  startedAt: string | null;
  /** `failed` if any target failed. */
  status: JobStatus;
  /** One per server and image. */
  targets: Target[];
};

/** Input of `job.all`. */
export type JobAllInput = {
  /** `nextCursor` of the page before. */
  cursor?: JobId | null | undefined;
  /** Only these. */
  kind?: JobKind | null | undefined;
  /** 1 to 100; 50 when absent. */
  limit?: number | null | undefined;
  /** Only jobs with a target on this server. */
  serverId?: ServerId | null | undefined;
  /** Only these. */
  status?: JobStatus | null | undefined;
};

/**
 * A job.
 *
 * Opaque: `job_…`.
 */
export type JobId = string;

/** What a job does. */
export type JobKind =
  /** A connection test on a host. */
  | "testRegistry"
  /** Pulls. */
  | "pull"
  /** A push. */
  | "push"
  /** The pulls of a Compose file; each target is a pull. */
  | "stackPull";

/** Input that names one job. */
export type JobOneInput = {
  /** Which job. */
  jobId: JobId;
};

/** A page of jobs. */
export type JobPage = {
  /** Newest first. */
  items: Job[];
  /** For the next page; null on the last. */
  nextCursor: string | null;
};

/** Where a job or a target stands. `dispatched` is shown as `running`. */
export type JobStatus =
  /** Accepted and stored; not with an agent yet. */
  | "queued"
  /** With an agent. */
  | "running"
  /** Ended well: the engine said so, and the digest was read back. */
  | "succeeded"
  /** Ended with an error. */
  | "failed"
  /** Ended by a person. */
  | "cancelled";

/** Input of `job.watch`. */
export type JobWatchInput = {
  /** Which job. */
  jobId: JobId;
  /** Sent by a caller that lost the stream. What comes first is the job as it is now in any case. */
  lastEventId?: EventId | null | undefined;
};

/** A server with a fresh join token. */
export type JoinableServer = {
  /** The agent's version; null until one joined. */
  agentVersion: string | null;
  /** When it was made. */
  createdAt: string;
  /** For people. */
  description: string | null;
  /** Its engine; null until an agent reported one. */
  engine: Engine | null;
  /** The command that joins a host, ready to paste. */
  joinCommand: string;
  /** For the agent's first start. Shown once. */
  joinToken: string;
  /** When the token stops working. */
  joinTokenExpiresAt: string;
  /** For choosing servers: `{"env": "prod"}`. */
  labels: { [key: string]: string };
  /** When its agent was last connected. */
  lastSeenAt: string | null;
  /** Its name, unique in the organization. */
  name: string;
  /** Whose it is. */
  organizationId: OrganizationId;
  /** Its id. */
  serverId: ServerId;
  /** Where it stands. */
  status: ServerStatus;
  /** When its name, description or labels were last changed. */
  updatedAt: string;
  /** What a person should do something about: such as two hosts that use one key. */
  warnings: string[];
};

export type Labels = { [key: string]: string };

/** How a stored entry's last test ended. */
export type LastTest = {
  /** When. */
  at: string;
  /** The diagnosis code of a failure. */
  code: string | null;
  /** Whether it succeeded. */
  ok: boolean;
  /** From which server; null for the control plane. */
  serverId: ServerId | null;
};

/** An image as its registry describes it. */
export type Manifest = {
  /** What it is, if it is something other than an image. */
  artifactType: string | null;
  /** Signatures and attestations. */
  attachments: Attachments;
  /** When it was built, as the builder says (RFC 3339, often a made-up constant), of the platform in `described`. */
  created: string | null;
  /** Of which platform `created` and `labels` are, as `linux/amd64`. */
  described: string | null;
  /** The hash of what the registry handed out, proven. */
  digest: string;
  /** Its labels, at most 128, of the platform in `described`. */
  labels: { [key: string]: string };
  /** Of the manifest or index. */
  mediaType: string;
  /** What it was built for; at most 64. */
  platforms: Platform[];
  /** The entry that was asked with; null: without credentials. */
  registryId: RegistryId | null;
  /** The path below the registry. */
  repository: string;
  /** All distinct blobs of all platforms, in bytes; null where one isn't known. */
  totalSizeBytes: number | null;
  /** What a person should know. */
  warnings: string[];
};

/** What became of one entry. */
export type MatchCandidate = {
  /** Whether it is the one. */
  chosen: boolean;
  /** What became of it, for programs. */
  fate: MatchFate;
  /** What became of it, in words. */
  reason: string;
  /** The entry. */
  registryId: RegistryId;
  /** Its name. */
  registryName: string;
};

/** How an entry fared against an image. */
export type MatchFate =
  /** It is the one. */
  | "chosen"
  /** It is for another registry. */
  | "otherHost"
  /** The image is outside its namespace. */
  | "otherNamespace"
  /** An entry with a longer namespace fits, too. */
  | "shorterNamespace"
  /** As good as the chosen one, which is the organization's default. */
  | "notDefault"
  /** As good as the chosen one, and newer. */
  | "newer";

/** An image reference, taken apart. */
export type MatchedReference = {
  /** It decides where there is a tag, too. */
  digest: string | null;
  /** The canonical host. */
  registry: string;
  /** The path below it. */
  repository: string;
  /** `latest` where neither tag nor digest was written. */
  tag: string | null;
};

/** A part of a list of names, in the registry's order. */
export type NamePage = {
  /** The names; each is valid in Docker's grammar. */
  items: string[];
  /** Where to go on; null at the end. */
  nextCursor: string | null;
  /** What a person should know about this page. */
  warnings: string[];
};

/** The input of procedures that take none. Any field is refused as unknown. */
export type NoInput = Record<string, never>;

/** A credential for one operation. It is erased when the operation ends. */
export type OneTimeAuth = {
  /** The password; kept byte for byte. */
  password: Secret;
  /** The user name. */
  username: string;
};

/** An organization as callers see it. */
export type Organization = {
  /** When it was made. */
  createdAt: string;
  /** Its name, unique in the installation. */
  name: string;
  /** Its id. */
  organizationId: OrganizationId;
  /** When it was last changed. */
  updatedAt: string;
};

/** Input of `organization.create`. */
export type OrganizationCreateInput = {
  /** 1 to 255 characters, unique in the installation. */
  name: string;
};

/**
 * An organization: the wall around everything else.
 *
 * Opaque: `org_…`.
 */
export type OrganizationId = string;

/** Input that names one organization. */
export type OrganizationOneInput = {
  /** Which organization. */
  organizationId: OrganizationId;
};

/** Input of `organization.update`. */
export type OrganizationUpdateInput = {
  /** A new name. */
  name?: string | null | undefined;
  /** Which organization. */
  organizationId: OrganizationId;
  /** As it was last read: CONFLICT, and no change, where it was changed since. */
  updatedAt?: string | null | undefined;
};

/**
 * What a key may do. Every procedure names exactly one. The names that `ShiftLabs` gives to registry permissions
 * are understood, too; they are always shown by their names here.
 */
export type Permission =
  /** See registry entries. */
  | "registry:read"
  /** Create and change registry entries; to test them first takes `registry:test`. */
  | "registry:write"
  /** Remove registry entries. */
  | "registry:delete"
  /** Test credentials, stored or given. */
  | "registry:test"
  /** See servers. */
  | "server:read"
  /** Create and change servers, issue join tokens. */
  | "server:write"
  /** Remove servers. */
  | "server:delete"
  /** See the images on a host. */
  | "image:read"
  /** Pull images onto hosts. */
  | "image:pull"
  /** Push images from hosts. */
  | "image:push"
  /** See jobs. */
  | "job:read"
  /** Cancel and repeat jobs. */
  | "job:write"
  /** See the key's organization. */
  | "organization:read"
  /** Change the key's organization. */
  | "organization:write"
  /** See the organization's API keys, never the keys themselves. */
  | "apiKey:read"
  /** Create API keys that may do no more than this one. */
  | "apiKey:write"
  /** Remove API keys. */
  | "apiKey:delete"
  /** See who did what. */
  | "audit:read"
  /**
   * Create organizations, and the first keys in them. Beyond any one organization, so no role has it: the key of
   * the first start has, and keys that such a key grants it to.
   */
  | "instance:admin";

/** One platform that an image was built for. */
export type Platform = {
  /** Such as `amd64`. */
  arch: string;
  /** Of the platform's own manifest. */
  digest: string;
  /** Such as `linux`. */
  os: string;
  /**
   * What is downloaded for it (configuration and compressed layers), in bytes; null where it wasn't looked up:
   * on Docker Hub each look would count as a pull, so only one platform is.
   */
  sizeBytes: number | null;
  /** Such as `v7`. */
  variant: string | null;
};

/** What is left of the allowance of these credentials, or without any, of this machine's address. */
export type PullAllowance = {
  /** Pulls in one window; null is unlimited, as Docker Hub's silence means. */
  limit: number | null;
  /** Pulls that are left; null where the registry didn't say. */
  remaining: number | null;
  /** The window, in seconds. */
  windowSeconds: number | null;
};

/** How often a key may call: a bucket of `requests` that fills again evenly within `windowSeconds`. */
export type RateLimit = {
  /** The most calls at once, and in the long run the calls per window: 1 to 1,000,000. */
  requests: number;
  /** In seconds: 1 to 86,400. */
  windowSeconds: number;
};

/** Something that says that it is about an image. Nothing of it was verified. */
export type Referrer = {
  /** What it is. */
  artifactType: string;
  /** Of its manifest. */
  digest: string;
  /** Of its manifest, in bytes. */
  sizeBytes: number | null;
};

/** A registry entry as callers see it. */
export type Registry = {
  /** When the entry was made. */
  createdAt: string;
  /** When the password was last set. */
  credentialsUpdatedAt: string | null;
  /** Whether a CA certificate of its own is stored. */
  hasCaCertificate: boolean;
  /** Whether a password is stored. */
  hasCredentials: boolean;
  /** What pushed names are prefixed with, as entered. */
  imagePrefix: string | null;
  /** Whether plain HTTP and unverified TLS are accepted. */
  insecure: boolean;
  /** Whether names without a registry go here. */
  isDefault: boolean;
  /**
   * Whose registry it is by its host, as `registry.presets` names the kinds; `other` where the host doesn't
   * tell. A test, which hears the registry's answer, may know more.
   */
  kind: RegistryKind;
  /** How the last test of the stored entry ended. */
  lastTest: LastTest | null;
  /** The path of the URL, or null. */
  namespace: string | null;
  /** Whose it is. */
  organizationId: OrganizationId;
  /** Token servers that the secret may be sent to besides those that the registry's own name vouches for. */
  realmAllow: string[];
  /** The canonical host: lower case, `docker.io` for every alias of Docker Hub, port kept. */
  registryHost: string;
  /** Its id. */
  registryId: RegistryId;
  /** Its name for people. */
  registryName: string;
  /** Who runs it. */
  registryType: RegistryType;
  /** The URL as entered, trimmed. */
  registryUrl: string;
  /** When it was last changed. */
  updatedAt: string;
  /** The user name, or null for an entry without credentials. */
  username: string | null;
};

/** Input of `registry.catalog`. */
export type RegistryCatalogInput = {
  /** `nextCursor` of the page before. */
  cursor?: string | null | undefined;
  /** 1 to 100; 100 when absent. */
  limit?: number | null | undefined;
  /** Ask the registry although its answer of the last 5 minutes is known. */
  refresh?: boolean | null | undefined;
  /** Which entry. */
  registryId: RegistryId;
};

/** Input of `registry.create`. */
export type RegistryCreateInput = {
  /** PEM, at most 64 KiB. */
  caCertificate?: string | null | undefined;
  /** Such as `mycompany/` or `ghcr.io/myorg/`. */
  imagePrefix?: string | null | undefined;
  /** Accept plain HTTP and unverified TLS. */
  insecure?: boolean | null | undefined;
  /** Makes this the default of the organization; another loses the mark. */
  isDefault?: boolean | null | undefined;
  /** At most 64 KiB; kept byte for byte. */
  password?: Secret | null | undefined;
  /** Further token servers that the secret may be sent to, as `host` (any port) or `host:port`; at most 32. */
  realmAllow?: string[] | null | undefined;
  /** A name for people, 1 to 255 characters. */
  registryName: string;
  /** Absent: what is usual for the registry's kind; `selfHosted` for a host that tells nothing. */
  registryType?: RegistryType | null | undefined;
  /** Host, host and port, or URL, with an optional namespace: `ghcr.io/myorg`. */
  registryUrl: string;
  /** Where to run the test that `test` asks for; null, `""` and `"none"` are the control plane. */
  serverId?: string | null | undefined;
  /** Test first, and store nothing when the test fails. Needs `registry:test`. */
  test?: boolean | null | undefined;
  /** Needed with a password. */
  username?: string | null | undefined;
};

/** One change of one entry. */
export type RegistryEvent = {
  /** When. */
  at: string;
  /** To which entry. */
  registryId: RegistryId;
  /** What happened. */
  type: Change;
};

/** Input of `registry.events`. */
export type RegistryEventsInput = {
  /** The id of the last event seen: what came after it is told first. Absent: only what comes. */
  lastEventId?: EventId | null | undefined;
};

/**
 * A registry entry.
 *
 * Opaque: `reg_…`.
 */
export type RegistryId = string;

/** The registries that Purser knows something about. */
export type RegistryKind =
  /** Docker Hub. */
  | "dockerHub"
  /** GitHub Container Registry. */
  | "ghcr"
  /** GitLab's container registry, on GitLab.com or elsewhere. */
  | "gitlab"
  /** Google Artifact Registry, `gcr.io` among its hosts. */
  | "googleArtifactRegistry"
  /** Amazon Elastic Container Registry. */
  | "ecr"
  /** Amazon's public gallery. */
  | "ecrPublic"
  /** Azure Container Registry. */
  | "acr"
  /** Harbor. */
  | "harbor"
  /** Quay, on quay.io or elsewhere. */
  | "quay"
  /** Sonatype Nexus Repository. */
  | "nexus"
  /** JFrog Artifactory. */
  | "artifactory"
  /** DigitalOcean Container Registry. */
  | "digitalOcean"
  /** Gitea or Forgejo. */
  | "gitea"
  /** It speaks the protocol and doesn't say what it is: CNCF Distribution, most likely. */
  | "distribution"
  /** Nothing is known. Also what a newer peer's kind is read as. */
  | "other";

/**
 * Input of `registry.manifest`: an `image` as `image.pull` takes it, which `registryId` may add the entry to; or
 * `registryId` with `repository`.
 */
export type RegistryManifestInput = {
  /** The image; its entry is found as a pull finds it. Excludes `repository` and `reference`. */
  image?: string | null | undefined;
  /** A tag or a digest; `latest` when absent. */
  reference?: string | null | undefined;
  /** The entry to ask with. Needed without `image`. */
  registryId?: RegistryId | null | undefined;
  /** The path below the registry. Needed without `image`. */
  repository?: string | null | undefined;
};

/** Input of `registry.match`. */
export type RegistryMatchInput = {
  /** An image as `image.pull` takes it. */
  image: string;
};

/** Which entry an image is pulled with, and why. */
export type RegistryMatchResult = {
  /** Every entry of the organization and what became of it, oldest first. */
  candidates: MatchCandidate[];
  /** Why, in words. */
  reason: string;
  /** What would be pulled. */
  reference: MatchedReference;
  /** With which entry; null: without credentials. */
  registryId: RegistryId | null;
  /** The oldest of the entries as good as the chosen one, which is the default or older; at most 100. */
  rivals: RegistryId[];
};

/** Input of `registry.one`. */
export type RegistryOneInput = {
  /** Which entry. */
  registryId: RegistryId;
};

/** A proposal for an entry of one kind. Every text is ours and fit to be shown. */
export type RegistryPreset = {
  /** Which kind. */
  kind: RegistryKind;
  /** Its name for people. */
  name: string;
  /** What else to know; empty for nothing. */
  notes: string;
  /** What to enter as password. */
  passwordHint: string;
  /** Who runs it. */
  registryType: RegistryType;
  /** The address where there is only one, else an example; always one that `RegistryAddress::parse` accepts. */
  registryUrl: string;
  /** What to enter as user name. */
  usernameHint: string;
};

/** Input of `registry.rateLimit`. */
export type RegistryRateLimitInput = {
  /** Which entry. */
  registryId: RegistryId;
};

/** Input of `registry.remove`. */
export type RegistryRemoveInput = {
  /** Remove it although jobs under way use it; they finish with what they started with. */
  force?: boolean | null | undefined;
  /** Which entry. */
  registryId: RegistryId;
};

/** Input of `registry.search`. */
export type RegistrySearchInput = {
  /** 1 to 100 hits in all; 25 when absent. */
  limit?: number | null | undefined;
  /** A part of a repository's path, or all of it; 1 to 256 characters. */
  query: string;
  /** Only there; everywhere when absent. */
  registryId?: RegistryId | null | undefined;
};

/** Input of `registry.tags`. */
export type RegistryTagsInput = {
  /** `nextCursor` of the page before. */
  cursor?: string | null | undefined;
  /** 1 to 100; 100 when absent. */
  limit?: number | null | undefined;
  /** Which entry. */
  registryId: RegistryId;
  /** The path below the registry, such as `myorg/app`. */
  repository: string;
};

/** Who runs a registry. It says nothing about the protocol; callers use it to sort. */
export type RegistryType =
  /** A service of somebody else. */
  | "cloud"
  /** Run by its users. */
  | "selfHosted";

/** Input of `registry.update`. */
export type RegistryUpdateInput = {
  /** A new CA certificate; null clears. Another one needs `password` too, where one is stored. */
  caCertificate?: string | null | undefined;
  /** A new prefix; null clears. */
  imagePrefix?: string | null | undefined;
  /** Accept plain HTTP and unverified TLS, or no longer. Turning it on needs `password` too, where one is stored. */
  insecure?: boolean | null | undefined;
  /** Makes this the default, or takes the mark away. */
  isDefault?: boolean | null | undefined;
  /** A new password; null clears. */
  password?: Secret | null | undefined;
  /** Other token servers; null clears. One that was not there before needs `password` too, where one is stored. */
  realmAllow?: string[] | null | undefined;
  /** Which entry. */
  registryId: RegistryId;
  /** A new name. */
  registryName?: string | null | undefined;
  /** A new type. */
  registryType?: RegistryType | null | undefined;
  /** A new URL; another host needs `password` too. */
  registryUrl?: string | null | undefined;
  /** Where to run the test that `test` asks for. */
  serverId?: string | null | undefined;
  /** Test the changed entry first, and change nothing when the test fails. Needs `registry:test`. */
  test?: boolean | null | undefined;
  /** As it was last read: CONFLICT, and no change, where it was changed since. */
  updatedAt?: string | null | undefined;
  /** A new user name; null clears, together with the password. */
  username?: string | null | undefined;
};

/** A named set of permissions. */
export type Role =
  /** Everything in its organization. */
  | "admin"
  /** Read, test, pull, push and watch; change nothing that is stored. */
  | "deployer"
  /** Read only. */
  | "viewer";

/** What a search found. */
export type SearchAnswer = {
  /** Whether every registry was looked through and every hit is listed. */
  complete: boolean;
  /** The registries that could not be searched. */
  errors: SearchError[];
  /** Exact hits first, then each registry's best in turn. */
  items: SearchFound[];
  /** What a person should know. */
  warnings: SearchWarning[];
};

/** Why one registry could not be searched. The others were. */
export type SearchError = {
  /** What to do. */
  advice: string;
  /** The diagnosis code. */
  code: string;
  /** What happened. */
  message: string;
  /** The entry. */
  registryId: RegistryId;
  /** Its name. */
  registryName: string;
};

/** A hit and where it is. */
export type SearchFound = {
  /** Docker Hub's short description, fit to be shown, at most 2 KiB. */
  description: string | null;
  /** The query named exactly this repository, and the registry has it. */
  exact: boolean;
  /** What to pull, without a tag: `nginx`, `ghcr.io/org/app`. */
  image: string;
  /** One of Docker Hub's official images. */
  official: boolean;
  /** How often it was pulled from Docker Hub. */
  pulls: number | null;
  /** Found with this entry. */
  registryId: RegistryId;
  /** Its name. */
  registryName: string;
  /** The path below the registry; `library/nginx` for Docker Hub's `nginx`. */
  repository: string;
  /** Docker Hub's stars. */
  stars: number | null;
};

/** What a person should know of one registry's part. */
export type SearchWarning = {
  /** One sentence or two. */
  message: string;
  /** The entry. */
  registryId: RegistryId;
};

/** A password or token, kept byte for byte and never shown again. At most 64 KiB of UTF-8. */
export type Secret = string;

/** A Docker host as callers see it. */
export type Server = {
  /** The agent's version; null until one joined. */
  agentVersion: string | null;
  /** When it was made. */
  createdAt: string;
  /** For people. */
  description: string | null;
  /** Its engine; null until an agent reported one. */
  engine: Engine | null;
  /** For choosing servers: `{"env": "prod"}`. */
  labels: { [key: string]: string };
  /** When its agent was last connected. */
  lastSeenAt: string | null;
  /** Its name, unique in the organization. */
  name: string;
  /** Whose it is. */
  organizationId: OrganizationId;
  /** Its id. */
  serverId: ServerId;
  /** Where it stands. */
  status: ServerStatus;
  /** When its name, description or labels were last changed. */
  updatedAt: string;
  /** What a person should do something about: such as two hosts that use one key. */
  warnings: string[];
};

/** Input of `server.create`. */
export type ServerCreateInput = {
  /** At most 1024 characters. */
  description?: string | null | undefined;
  /** At most 64, keys to 63 and values to 255 characters. */
  labels?: Labels | null | undefined;
  /** 1 to 255 characters, unique in the organization. */
  name: string;
};

/**
 * A Docker host and its agent.
 *
 * Opaque: `srv_…`.
 */
export type ServerId = string;

/** Input that names one server. */
export type ServerOneInput = {
  /** Which server. */
  serverId: ServerId;
};

/** Where a server stands. */
export type ServerStatus =
  /** No agent has joined yet. */
  | "pending"
  /** Its agent is connected. */
  | "online"
  /** Its agent has joined and is not connected. */
  | "offline"
  /** It was removed. */
  | "revoked";

/** Input of `server.update`. */
export type ServerUpdateInput = {
  /** A new description; null clears. */
  description?: string | null | undefined;
  /** New labels in place of all the old ones; null clears. */
  labels?: Labels | null | undefined;
  /** A new name. */
  name?: string | null | undefined;
  /** Which server. */
  serverId: ServerId;
  /** As it was last read: CONFLICT, and no change, where it was changed since. */
  updatedAt?: string | null | undefined;
};

/** Why a service is not pulled. */
export type SkipReason =
  /** It is built, and names no image. */
  | "build"
  /** Its `pull_policy` is `never` or `build`. */
  | "pullPolicy"
  /** None of its profiles was asked for. */
  | "profile"
  /** Something else than an engine provides it. */
  | "provider";

/** A service without a pull. */
export type SkippedService = {
  /** Why, in words. */
  reason: string;
  /** Its name. */
  service: string;
  /** Why, for programs. */
  why: SkipReason;
};

/** An image of a Compose file. */
export type StackImage = {
  /** What would be pulled, fully qualified. */
  image: string;
  /** The services' platform; null: the host's own. */
  platform: string | null;
  /** Why, in words. */
  reason: string;
  /** The same, taken apart. */
  reference: MatchedReference;
  /** With which entry; null: without credentials. */
  registryId: RegistryId | null;
  /** The services that use it. */
  services: string[];
};

/** What a Compose file comes to. */
export type StackImages = {
  /** Each once per platform, in the order of the names of the services. */
  images: StackImage[];
  /** The services without a pull, by name. */
  skipped: SkippedService[];
};

/** Input of `stack.images`. */
export type StackImagesInput = {
  /**
   * The text of one Compose file, at most 512 KiB and 500 services. What it includes or extends from other files
   * cannot be seen: send the output of `docker compose config --no-interpolate` then.
   */
  composeFile: ComposeFile;
  /** Services with profiles are in only when one of theirs is here; `*` is every profile. */
  profiles?: string[] | null | undefined;
  /** Use this entry for the images of its registry; the others are matched as ever. */
  registryId?: RegistryId | null | undefined;
  /**
   * For `$NAME` and `${NAME…}` in it. A variable that an image name needs, that is not here and has no default,
   * is an error: Docker would leave it empty, and pull something else.
   */
  variables?: Variables | null | undefined;
};

/**
 * Input of `stack.pull`. Exactly one of `serverId`, `serverIds` and `labels` is needed. Hosts times images are
 * at most 10000.
 */
export type StackPullInput = {
  /** With this credential. Only where all images are of one registry: it is sent to no other. */
  auth?: OneTimeAuth | null | undefined;
  /** As of `stack.images`. */
  composeFile: ComposeFile;
  /** After the first failure, cancel what has not started. */
  failFast?: boolean | null | undefined;
  /** Onto every host that has all of these labels. */
  labels?: { [key: string]: string } | null | undefined;
  /** How many pulls at once, over all hosts, 1 to 10000; all when absent. */
  maxParallel?: number | null | undefined;
  /** For services that name none, such as `linux/arm64`; the host's own when absent. */
  platform?: string | null | undefined;
  /** As of `stack.images`. */
  profiles?: string[] | null | undefined;
  /** How long a target may wait for its host, in seconds, at most a week; 15 minutes when absent. */
  queueTimeoutSeconds?: number | null | undefined;
  /** Use this entry for the images of its registry; the others are matched as ever. */
  registryId?: RegistryId | null | undefined;
  /** Onto this host. */
  serverId?: ServerId | null | undefined;
  /** Onto these hosts. */
  serverIds?: ServerId[] | null | undefined;
  /** How long it may go on without progress, in seconds, at most a day; 10 minutes when absent. */
  stallTimeoutSeconds?: number | null | undefined;
  /** How long it may run in all, in seconds, at most a day; an hour when absent. */
  timeoutSeconds?: number | null | undefined;
  /** As of `stack.images`. */
  variables?: Variables | null | undefined;
  /** Answer when the job has ended, or after 15 minutes. */
  wait?: boolean | null | undefined;
};

/** One rung that was tried. */
export type Step = {
  /** What was seen, for people. Never holds a secret or a control character; at most 2 KiB. */
  detail: string;
  /** How long it took, in whole milliseconds. */
  durationMs: number;
  /** Whether it held. A failed rung may be followed by others (TLS, then plain HTTP where that is permitted). */
  ok: boolean;
  /** Which rung. */
  step: StepName;
};

/** A rung of the ladder, in the order in which they are climbed. */
export type StepName =
  /** The name was looked up and every address judged by the egress policy. */
  | "resolve"
  /** A TCP connection was opened. */
  | "connect"
  /** The TLS handshake, and the check of the certificate. */
  | "tls"
  /** `GET /v2/` without credentials. */
  | "ping"
  /** The registry's challenge was understood and its token server judged. */
  | "challenge"
  /** The token server was asked. */
  | "token"
  /** `GET /v2/` with credentials or token. */
  | "authenticate"
  /** A manifest of the repository was asked for. */
  | "pull"
  /** An upload to the repository was begun and cancelled. */
  | "push"
  /** The host's Docker Engine logged in. Only agents take this one. */
  | "engineLogin";

/** One server's part of a job. */
export type Target = {
  /** How often it was given to an agent. */
  attempts: number;
  /** Which credential it uses. */
  credentials: CredentialSource;
  /** What went wrong; null unless it failed, was held back by `failFast`, or waits to be tried again. */
  error: TargetError | null;
  /** The image, fully qualified; null for a test. */
  image: string | null;
  /** When it is tried again; only while it waits for that. */
  nextAttemptAt?: string;
  /** How far it is; null before it starts and after it ended. */
  progress: TargetProgress | null;
  /** The entry used; null where none is. */
  registryId: RegistryId | null;
  /** What came out; null unless it succeeded. */
  result: TargetResult | null;
  /** On which server. */
  serverId: ServerId;
  /** Where it stands. */
  status: JobStatus;
  /** Its id. */
  targetId: TargetId;
};

/** Why a target failed. */
export type TargetError = {
  /** What to do. */
  advice: string;
  /** A diagnosis code, such as `unauthorized`. */
  code: string;
  /** The engine's own words. */
  engineMessage: string | null;
  /** For people. */
  message: string;
};

/**
 * One server's part of a job.
 *
 * Opaque: `tgt_…`.
 */
export type TargetId = string;

/** How far a pull or push is. */
export type TargetProgress = {
  /** Bytes moved. */
  downloadedBytes: number;
  /** Layers done. */
  layersDone: number;
  /** Layers seen so far. */
  layersTotal: number;
  /** 0 to 99 while running, never backwards; null while the total is unknown. */
  percent: number | null;
  /** The engine's word for what it does: `downloading`, `extracting`, `pushing`, …. */
  phase: string;
  /** Bytes to move, once known. */
  totalBytes: number | null;
};

/** What a successful target brought. */
export type TargetResult = {
  /** The image's digest, read back from the engine; null for a test. */
  digest: string | null;
  /** How long it took on the host, in milliseconds. */
  durationMs: number;
  /** The image's size on the host. */
  sizeBytes?: number;
};

/** Why a test or an operation at a registry failed: `data.diagnosis`. */
export type TestDiagnosis = {
  /** What to try next; empty when nothing useful can be said. */
  advice: string;
  /** For programs. */
  code: DiagnosisCode;
  /** What the Engine or the registry said, stripped of control characters and cut at `MAX_TEXT_BYTES`. */
  engineMessage?: string;
  /** One sentence for people. */
  message: string;
  /** What was tried, in order; the last one failed. */
  steps: Step[];
};

/** Input of `registry.testRegistryById`. */
export type TestRegistryByIdInput = {
  /** What to try on `repository`; pull when absent. */
  access?: AccessList | null | undefined;
  /** Which entry. */
  registryId: RegistryId;
  /** A repository to try `access` on. */
  repository?: string | null | undefined;
  /** From where; null, `""` and `"none"` are the control plane. */
  serverId?: string | null | undefined;
};

/** Input of `registry.testRegistry`. */
export type TestRegistryInput = {
  /** What to try on `repository`; pull when absent. */
  access?: AccessList | null | undefined;
  /** PEM, at most 64 KiB. */
  caCertificate?: string | null | undefined;
  /** Taken for compatibility. */
  imagePrefix?: string | null | undefined;
  /** Accept plain HTTP and unverified TLS. */
  insecure?: boolean | null | undefined;
  /** At most 64 KiB; kept byte for byte. */
  password?: Secret | null | undefined;
  /** Further token servers that the secret may be sent to, as `host` (any port) or `host:port`; at most 32. */
  realmAllow?: string[] | null | undefined;
  /** Taken for compatibility. */
  registryName?: string | null | undefined;
  /** Taken for compatibility; a test does not depend on it. */
  registryType?: RegistryType | null | undefined;
  /** Host, host and port, or URL. */
  registryUrl: string;
  /** A repository to try `access` on, such as `myorg/app`. */
  repository?: string | null | undefined;
  /** From where; null, `""` and `"none"` are the control plane. */
  serverId?: string | null | undefined;
  /** Needed with a password. */
  username?: string | null | undefined;
};

/** A test that succeeded. A failed one is an error with `data.diagnosis`. */
export type TestResult = {
  /** What was tried on `repository`. */
  access?: AccessVerdict;
  /** What the registry asks for. */
  auth: AuthScheme;
  /** What the test says about the credentials. `notRequired`: the registry never asked for them. */
  credentials: CredentialsVerdict;
  /**
   * Whose registry it is, by its host or else by its answer, as `registry.presets` names the kinds; `other`
   * where neither tells.
   */
  kind: RegistryKind;
  /** The canonical host. */
  registryHost: string;
  /** What was done, in order. */
  steps: Step[];
  /** Always true. */
  success: true;
  /** Who asked the registry. */
  testedFrom: TestedFrom;
  /** What works but should not stay so, such as plain HTTP. */
  warnings: string[];
};

/** From where a test ran. */
export type TestedFrom = {
  /** The server; null for the control plane. */
  serverId: ServerId | null;
  /** Its name; `control plane` for the control plane. */
  serverName: string;
};

/** What stands in the way of removing something: `data.usedBy`. */
export type UsedBy = {
  /** Jobs that have not ended, oldest first; at most 100 of them. */
  jobs: JobId[];
  /** How many there are. */
  total: number;
};

/** Values by variable, each at most 64 KiB of UTF-8. */
export type Variables = { [key: string]: string };

/**
 * What is wrong with an input, in the form that zod's `flatten()` gives.
 *
 * Messages name rules and field names, never a received value.
 */
export type ZodError = {
  /** What is wrong with each field, by its name on the wire. */
  fieldErrors: { [key: string]: string[] };
  /** What is wrong with the input as a whole. */
  formErrors: string[];
};
