// What the compiler makes of the declarations with @trpc/client 11. It is compiled, never run: each
// `@ts-expect-error` is a mistake that must be one.

import {
  createTRPCClient,
  httpBatchLink,
  httpBatchStreamLink,
  httpSubscriptionLink,
  splitLink,
  TRPCClientError,
} from '@trpc/client';
import type { inferRouterInputs, inferRouterOutputs } from '@trpc/server';
import type { AppRouter, Job, Registry, SuperjsonAppRouter, TestResult, Tracked } from 'purser';
import superjson from 'superjson';

const url = 'http://127.0.0.1:3000/api/trpc';
const headers = { 'x-api-key': 'key' };

export const purser = createTRPCClient<AppRouter>({
  links: [
    splitLink({
      condition: (op) => op.type === 'subscription',
      true: httpSubscriptionLink({ url, connectionParams: headers }),
      false: httpBatchLink({ url, headers }),
    }),
  ],
});
export const inSuperjson = createTRPCClient<SuperjsonAppRouter>({
  links: [httpBatchStreamLink({ url, headers, transformer: superjson })],
});
// @ts-expect-error the plain router's links take no transformer
createTRPCClient<AppRouter>({ links: [httpBatchLink({ url, transformer: superjson })] });
// @ts-expect-error and the other one's must have one
createTRPCClient<SuperjsonAppRouter>({ links: [httpBatchLink({ url })] });

/** Of exactly this type: neither wider, nor narrower, nor any. */
function exactly<Wanted>() {
  return <Given>(
    value: Given,
    ..._same: (<T>() => T extends Wanted ? 1 : 2) extends <T>() => T extends Given ? 1 : 2 ? [] : [never]
  ): Given => value;
}

export async function inputs() {
  await purser.registry.create.mutate({ registryName: 'GHCR', registryUrl: 'ghcr.io/myorg' });
  await purser.registry.create.mutate({
    registryName: 'GHCR',
    registryUrl: 'ghcr.io/myorg',
    username: undefined,
    password: null,
    registryType: 'cloud',
    realmAllow: ['auth.example.com'],
  });
  // Where nothing is needed nothing is sent.
  await purser.registry.all.query();
  await purser.job.all.query();
  await purser.job.all.query({ status: 'failed', limit: 10 });
  await purser.registry.testRegistryById.mutate({ registryId: 'reg_1', access: ['pull', 'push'] });
  await purser.image.pull.mutate({ image: 'nginx', labels: { env: 'prod' }, auth: { username: 'u', password: 'p' } });

  // @ts-expect-error a field that there is not
  await purser.registry.create.mutate({ registryName: 'GHCR', registryUrl: 'ghcr.io', colour: 'x' });
  // @ts-expect-error a field that is missing
  await purser.registry.create.mutate({ registryName: 'GHCR' });
  // @ts-expect-error no input where one is needed
  await purser.registry.one.query();
  // @ts-expect-error a word that is none
  await purser.registry.create.mutate({ registryName: 'GHCR', registryUrl: 'ghcr.io', registryType: 'onPremise' });
  // @ts-expect-error a number that is text
  await purser.job.all.query({ limit: '10' });
  // @ts-expect-error a list of other things
  await purser.image.pull.mutate({ image: 'nginx', serverIds: [1] });
  // @ts-expect-error half a credential
  await purser.image.pull.mutate({ image: 'nginx', serverId: 'srv_1', auth: { username: 'u' } });
  // @ts-expect-error null where there is no null
  await purser.registry.one.query({ registryId: null });
  // @ts-expect-error something where nothing goes in
  await purser.registry.all.query({ limit: 1 });
}

export async function outputs() {
  const entry = await purser.registry.one.query({ registryId: 'reg_1' });
  exactly<string>()(entry.registryId);
  exactly<string | null>()(entry.namespace);
  exactly<'cloud' | 'selfHosted'>()(entry.registryType);
  exactly<boolean | undefined>()(entry.lastTest?.ok);
  const same: Registry = entry;
  exactly<Registry>()(await inSuperjson.registry.one.query({ registryId: same.registryId }));
  const all: Registry[] = await purser.registry.all.query();
  exactly<string | undefined>()(all[0]?.createdAt);
  const result: TestResult = await purser.registry.testRegistry.mutate({ registryUrl: 'ghcr.io' });
  exactly<true>()(result.success);
  const job: Job = await purser.image.pull.mutate({ image: 'nginx', serverId: 'srv_1' });
  exactly<number | null | undefined>()(job.targets[0]?.progress?.percent);

  // @ts-expect-error there is no password to be had
  entry.password;
  // @ts-expect-error null is not text
  const namespace: string = entry.namespace;
  // @ts-expect-error none of its words
  if (job.status === 'done') return namespace;
  // @ts-expect-error a list is no entry
  all.registryId;
  return job;
}

export function subscriptions() {
  const subscription = purser.job.watch.subscribe(
    { jobId: 'job_1' },
    {
      onData: (event) => {
        exactly<string>()(event.id);
        const tracked: Tracked<Job> = event;
        exactly<Job['status']>()(tracked.data.status);
        // @ts-expect-error the job is in `data`
        event.status;
      },
      onError: (error) => {
        exactly<number | undefined>()(error.data?.httpStatus);
        // @ts-expect-error none of the codes
        return error.data?.code === 'OH_NO';
      },
    },
  );
  subscription.unsubscribe();
  // @ts-expect-error no input where one is needed
  purser.job.watch.subscribe(undefined, {});
}

export async function kinds() {
  // @ts-expect-error a query is not mutated
  await purser.registry.all.mutate();
  // @ts-expect-error a mutation is not queried
  await purser.registry.create.query({ registryName: 'GHCR', registryUrl: 'ghcr.io' });
  // @ts-expect-error a subscription is not queried
  await purser.job.watch.query({ jobId: 'job_1' });
  // @ts-expect-error no such procedure
  await purser.registry.drop.mutate({});
  // @ts-expect-error no such namespace
  await purser.registries.all.query();
}

export function errors(error: unknown) {
  if (!(error instanceof TRPCClientError)) return;
  const typed = error as TRPCClientError<AppRouter>;
  exactly<string[] | undefined>()(typed.data?.zodError?.formErrors);
  exactly<string | undefined>()(typed.data?.diagnosis?.advice);
  if (typed.data?.diagnosis?.code === 'tls_unknown_authority') return typed.data.diagnosis.steps;
  // @ts-expect-error none of the diagnoses
  return typed.data?.diagnosis?.code === 'bad_luck';
}

export type Inputs = inferRouterInputs<AppRouter>['registry']['remove'];
export const remove: Inputs = { registryId: 'reg_1', force: true };
export type Outputs = inferRouterOutputs<AppRouter>['server']['create'];
export const joinToken = (server: Outputs): string => server.joinToken;
