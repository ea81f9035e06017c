// The procedures of Purser, for @trpc/client 10 (needs @trpc/server 10 beside it, for its types only).
// Made of the procedure table; a running Purser serves its own at /api/trpc-v10.d.ts. Do not edit.
//
//   import { createTRPCProxyClient, httpBatchLink } from "@trpc/client";
//   import type { AppRouter } from "./trpc-v10";
//   const purser = createTRPCProxyClient<AppRouter>({ links: [httpBatchLink({ url, headers: { "x-api-key": key } })] });

import type { AnyRouter, CreateRouterInner, Procedure } from "@trpc/server";

/** Purser, for clients with `transformer: superjson` and without one. */
export type AppRouter = CreateRouterInner<
  Config,
  { [Namespace in keyof Procedures]: CreateRouterInner<Config, Procedures[Namespace]> }
>;

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

type Config = Omit<AnyRouter["_def"]["_config"], "$types" | "transformer"> & {
  $types: { ctx: object; meta: object; errorShape: ErrorShape; transformer: unknown };
  transformer: unknown;
};

type Call<Type extends "query" | "mutation", Input, Output> = Procedure<
  Type,
  {
    _config: Config;
    _meta: object;
    _ctx_out: object;
    _input_in: Input;
    _input_out: Input;
    _output_in: Output;
    _output_out: Output;
  }
>;

type Query<Input, Output> = Call<"query", Input, Output>;

type Mutation<Input, Output> = Call<"mutation", Input, Output>;
