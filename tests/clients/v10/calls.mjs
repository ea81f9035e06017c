// @trpc/client 10: httpLink and httpBatchLink, plain and superjson.

import { createTRPCProxyClient, httpBatchLink, httpLink } from '@trpc/client';
import superjson from 'superjson';

import { headers, isToldWhatIsTooLarge, mount, works } from '../procedures.mjs';

for (const link of [httpLink, httpBatchLink]) {
  for (const transformer of [undefined, superjson]) {
    // A base URL may end with a slash.
    for (const url of [mount, `${mount}/`]) {
      const client = (headers) => createTRPCProxyClient({ transformer, links: [link({ url, headers })] });
      await works(client(headers), client({}));
      await isToldWhatIsTooLarge(client(headers), client({}), link !== httpLink);
      console.log(`ok: ${link.name} ${transformer ? 'superjson' : 'plain'} ${url}`);
    }
  }
}
