// What every client must get from every link and in every dialect: results, typed errors, batches.

import assert from 'node:assert/strict';

export const url = process.env.PURSER_URL;
export const key = process.env.PURSER_KEY;
export const mount = `${url}/api/trpc`;
export const headers = { 'x-api-key': key };

let made = 0;
export const nowhere = () => ({ registryName: `entry ${made++}`, registryUrl: '127.0.0.1:1' });

/** The promise fails with this typed error; gives it. */
export async function fails(promise, code, httpStatus, path) {
  const error = await promise.then(() => assert.fail(`${path} succeeded`), (error) => error);
  assert.equal(error.name, 'TRPCClientError', String(error));
  assert.deepEqual([error.data?.code, error.data?.httpStatus, error.data?.path], [code, httpStatus, path], String(error));
  assert.equal(typeof error.shape.code, 'number');
  assert.ok(error.message.length > 0);
  return error;
}

/** What is refused before it is known how its caller speaks. */
export async function isToldWhatIsTooLarge(client, nobody, batches) {
  const large = (length) => ({ ...nowhere(), registryName: 'x'.repeat(length) });
  await fails(client.registry.create.mutate(large(5 << 20)), 'PAYLOAD_TOO_LARGE', 413, undefined);
  await fails(nobody.registry.create.mutate(large(100 << 10)), 'UNAUTHORIZED', 401, undefined);
  const many = Array.from({ length: 101 }, () => client.registry.all.query());
  if (batches) {
    await Promise.all(many.map((call) => fails(call, 'PAYLOAD_TOO_LARGE', 413, undefined)));
  } else {
    await Promise.all(many);
  }
}

/** `client` has a key, `nobody` has none. */
export async function works(client, nobody) {
  assert.deepEqual(await client.registry.all.query(), []);
  const one = await client.registry.create.mutate({ ...nowhere(), imagePrefix: undefined });
  assert.equal(one.imagePrefix, null);
  assert.match(one.createdAt, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  // Together, so that links that batch do, and one failure does not spoil the others.
  const missing = { registryId: 'reg_missing' };
  const [all, same, none, two] = await Promise.all([
    client.registry.all.query(),
    client.registry.one.query({ registryId: one.registryId }),
    fails(client.registry.one.query(missing), 'NOT_FOUND', 404, 'registry.one'),
    client.registry.create.mutate(nowhere()),
  ]);
  assert.deepEqual(all[0], one);
  assert.deepEqual(same, one);
  assert.equal(none.shape.code, -32004);
  const wrong = client.registry.create.mutate({ registryName: '', registryUrl: '127.0.0.1:1', colour: 'x' });
  const bad = await fails(wrong, 'BAD_REQUEST', 400, 'registry.create');
  assert.ok(Array.isArray(bad.data.zodError.fieldErrors.colour), JSON.stringify(bad.data));
  const failed = client.registry.testRegistryById.mutate({ registryId: one.registryId });
  const test = await fails(failed, 'BAD_REQUEST', 400, 'registry.testRegistryById');
  assert.equal(test.data.diagnosis.code, 'connect');
  await fails(nobody.registry.all.query(), 'UNAUTHORIZED', 401, 'registry.all');
  await fails(nobody.registry.create.mutate(nowhere()), 'UNAUTHORIZED', 401, 'registry.create');
  await fails(client.no.such.query(), 'NOT_FOUND', 404, 'no.such');
  for (const { registryId } of [one, two]) {
    assert.equal((await client.registry.remove.mutate({ registryId })).registryId, registryId);
  }
  assert.deepEqual(await client.registry.all.query(), []);
}
