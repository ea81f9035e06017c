// What the compiler makes of the declarations with @trpc/client 10. It is compiled, never run: each
// `@ts-expect-error` is a mistake that must be one.

import { createTRPCProxyClient, httpBatchLink, TRPCClientError } from '@trpc/client';
import type { inferRouterInputs, inferRouterOutputs } from '@trpc/server';
import type { AppRouter, Job, Registry } from 'purser';
import superjson from 'superjson';

const links = [httpBatchLink({ url: 'http://127.0.0.1:3000/api/trpc', headers: { 'x-api-key': 'key' } })];

export const purser = createTRPCProxyClient<AppRouter>({ links });
export const inSuperjson = createTRPCProxyClient<AppRouter>({ transformer: superjson, links });

export async function inputs() {
  await purser.registry.create.mutate({ registryName: 'GHCR', registryUrl: 'ghcr.io/myorg', username: undefined });
  await inSuperjson.registry.update.mutate({ registryId: 'reg_1', imagePrefix: null });
  await purser.registry.all.query();
  await purser.job.all.query({ status: 'failed', limit: 10 });

  // @ts-expect-error a field that there is not
  await purser.registry.create.mutate({ registryName: 'GHCR', registryUrl: 'ghcr.io', colour: 'x' });
  // @ts-expect-error a field that is missing
  await purser.registry.create.mutate({ registryName: 'GHCR' });
  // @ts-expect-error no input where one is needed
  await purser.registry.one.query();
  // @ts-expect-error a word that is none
  await purser.registry.create.mutate({ registryName: 'GHCR', registryUrl: 'ghcr.io', registryType: 'onPremise' });
}

export async function outputs() {
  const entry: Registry = await purser.registry.one.query({ registryId: 'reg_1' });
  const all: Registry[] = await inSuperjson.registry.all.query();
  const job: Job = await purser.image.pull.mutate({ image: 'nginx', serverId: 'srv_1' });
  // @ts-expect-error there is no password to be had
  (await purser.registry.one.query({ registryId: 'reg_1' })).password;
  // @ts-expect-error null is not text
  const namespace: string = (await purser.registry.one.query({ registryId: 'reg_1' })).namespace;
  return [entry, all, job, namespace];
}

export async function kinds() {
  // @ts-expect-error a query is not mutated
  await purser.registry.all.mutate();
  // @ts-expect-error no such procedure
  await purser.registry.drop.mutate({});
  // @ts-expect-error this version has no subscriptions that Purser speaks
  purser.job.watch;
}

export function errors(error: TRPCClientError<AppRouter>) {
  if (error.data?.diagnosis?.code === 'tls_unknown_authority') return error.data.diagnosis.steps;
  // @ts-expect-error none of the diagnoses
  return error.data?.diagnosis?.code === 'bad_luck';
}

export const remove: inferRouterInputs<AppRouter>['registry']['remove'] = { registryId: 'reg_1', force: true };
export const joinToken = (server: inferRouterOutputs<AppRouter>['server']['create']): string => server.joinToken;
