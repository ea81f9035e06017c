// @trpc/client 11: a slow call of a batch keeps no other one waiting, and the space that tells of life meanwhile is
// read as none of them.

import assert from 'node:assert/strict';

import { createTRPCClient, httpBatchStreamLink, httpLink } from '@trpc/client';
import superjson from 'superjson';

import { headers, mount, nowhere } from '../procedures.mjs';

const beside = createTRPCClient({ links: [httpLink({ url: mount, headers })] });
for (const transformer of [undefined, superjson]) {
  const batches = [];
  let seen;
  const pinged = new Promise((resolve, reject) => (seen = { resolve, reject }));
  const fetching = async (url, options) => {
    batches.push(String(url));
    const response = await fetch(url, options);
    const [own, read] = response.body.tee();
    const look = async () => {
      for await (const bytes of own) if (bytes.length === 1 && bytes[0] === 32) seen.resolve();
    };
    look().catch(seen.reject);
    return new Response(read, response);
  };
  const link = httpBatchStreamLink({ url: mount, headers, transformer, fetch: fetching });
  const client = createTRPCClient({ links: [link] });
  const { serverId } = await beside.server.create.mutate({ name: `never joins ${!!transformer}` });
  const pull = () => client.image.pull.mutate({ image: '127.0.0.1:1/app:v1', serverId, wait: true });
  const slow = [pull(), pull()];
  const quick = await client.registry.create.mutate(nowhere());
  assert.equal(quick.registryUrl, '127.0.0.1:1');
  assert.equal(batches.length, 1, `one batch: ${batches}`);
  let items = [];
  while (items.length < 2) ({ items } = await beside.job.all.query({ status: 'queued' }));
  await pinged;
  for (const { jobId } of items) await beside.job.cancel.mutate({ jobId });
  for (const job of await Promise.all(slow)) assert.equal(job.status, 'cancelled');
  console.log(`ok: ${transformer ? 'superjson' : 'plain'}`);
}
