// @trpc/client 11: httpLink, httpBatchLink and httpBatchStreamLink, plain and superjson, by GET and POST.

import { createTRPCClient, httpBatchLink, httpBatchStreamLink, httpLink } from '@trpc/client';
import superjson from 'superjson';

import { headers, isToldWhatIsTooLarge, mount, works } from '../procedures.mjs';

for (const link of [httpLink, httpBatchLink, httpBatchStreamLink]) {
  for (const transformer of [undefined, superjson]) {
    for (const methodOverride of [undefined, 'POST']) {
      const client = (headers) =>
        createTRPCClient({ links: [link({ url: mount, headers, transformer, methodOverride })] });
      await works(client(headers), client({}));
      await isToldWhatIsTooLarge(client(headers), client({}), link !== httpLink);
      console.log(`ok: ${link.name} ${transformer ? 'superjson' : 'plain'} ${methodOverride ?? 'GET'}`);
    }
  }
}
