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
