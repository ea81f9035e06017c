// @trpc/client 11: httpSubscriptionLink through a link that its starter cuts and stalls when this script says
// so (`please …` on a line of its own). PURSER_LINK is that link, PURSER_URL goes past it; DIALECT is `plain` or
// `superjson`.

import assert from 'node:assert/strict';

import { createTRPCClient, httpLink, httpSubscriptionLink } from '@trpc/client';
import { EventSource } from 'eventsource';
import superjson from 'superjson';

import { headers, key, mount, nowhere } from '../procedures.mjs';

const beside = createTRPCClient({ links: [httpLink({ url: mount, headers })] });

function over(url, transformer, connectionParams = { 'x-api-key': key }) {
  const link = httpSubscriptionLink({ url, transformer, connectionParams, EventSource });
  return createTRPCClient({ links: [link] });
}

/** A subscription as something to wait for: `next` event, `state` of the connection, `end`. */
function follow(procedure, input) {
  const [events, states, waiting] = [[], [], []];
  const look = () => waiting.splice(0).forEach((again) => again());
  let ended;
  const subscription = procedure.subscribe(input, {
    onData: (event) => (events.push(event), look()),
    onConnectionStateChange: (state) => (states.push(state.state), look()),
    onError: (error) => ((ended = { error }), look()),
    onComplete: () => ((ended = { complete: true }), look()),
  });
  const until = async (found) => {
    for (;;) {
      const value = found();
      if (value !== undefined) return value;
      await new Promise((again) => waiting.push(again));
    }
  };
  return {
    next: () => until(() => (events.length ? events.shift() : ended && assert.fail(JSON.stringify(ended)))),
    state: (wanted) => until(() => (states.includes(wanted) ? (states.splice(0), wanted) : undefined)),
    end: () => until(() => ended),
    left: () => events,
    stop: () => subscription.unsubscribe(),
  };
}

const told = (event) => [event.data.type, event.data.registryId];

const transformer = process.env.DIALECT === 'superjson' ? superjson : undefined;
const events = follow(over(`${process.env.PURSER_LINK}/api/trpc`, transformer).registry.events);
await events.state('pending');
const a = await beside.registry.create.mutate(nowhere());
const first = await events.next();
assert.deepEqual(told(first), ['created', a.registryId]);
assert.ok(first.id);

// The connection breaks: EventSource comes back by itself, with Last-Event-ID.
console.log('please cut');
await events.state('connecting');
const b = await beside.registry.create.mutate(nowhere());
await beside.registry.remove.mutate({ registryId: a.registryId });
console.log('please mend');
assert.deepEqual(told(await events.next()), ['created', b.registryId]);
assert.deepEqual(told(await events.next()), ['removed', a.registryId]);
await events.state('pending');

// The connection stays and nothing comes: the client makes another one, with lastEventId in the input.
console.log('please stall');
await events.state('connecting');
await beside.registry.remove.mutate({ registryId: b.registryId });
const c = await beside.registry.create.mutate(nowhere());
console.log('please flow');
assert.deepEqual(told(await events.next()), ['removed', b.registryId]);
assert.deepEqual(told(await events.next()), ['created', c.registryId]);
assert.deepEqual(events.left(), [], 'each event once');
events.stop();

// A job is told to its end, and the client does not come back after it.
const { serverId } = await beside.server.create.mutate({ name: 'never joins' });
const { jobId } = await beside.image.pull.mutate({ image: '127.0.0.1:1/app:v1', serverId });
const client = over(mount, transformer);
const job = follow(client.job.watch, { jobId });
assert.equal((await job.next()).data.status, 'queued');
const cancelled = await beside.job.cancel.mutate({ jobId });
assert.deepEqual((await job.next()).data, cancelled);
assert.deepEqual(await job.end(), { complete: true });

// Errors are typed.
for (const [procedure, input, code, status] of [
  [over(mount, transformer, { 'x-api-key': 'wrong' }).registry.events, undefined, 'UNAUTHORIZED', 401],
  [over(mount, transformer, {}).registry.events, undefined, 'UNAUTHORIZED', 401],
  [client.job.watch, { jobId: 'job_missing' }, 'NOT_FOUND', 404],
  [client.job.watch, {}, 'BAD_REQUEST', 400],
  [client.registry.events, { lastEventId: '999999' }, 'PRECONDITION_FAILED', 412],
]) {
  const { error } = await follow(procedure, input).end();
  assert.equal(error.name, 'TRPCClientError');
  assert.deepEqual([error.data?.code, error.data?.httpStatus], [code, status], String(error));
  assert.equal(Array.isArray(error.data.zodError?.fieldErrors.jobId), code === 'BAD_REQUEST');
}
const unknown = await follow(client.no.such).end();
assert.equal(unknown.error.name, 'TRPCClientError');
console.log(`ok: ${process.env.DIALECT}`);
