// The official TypeScript SDK, second line (`@modelcontextprotocol/client`): speaks both eras, chosen per target.
import { Client, LOG_LEVEL_META_KEY, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';

import { main } from './scenarios.mjs';

const QUESTIONS = ['sampling/createMessage', 'elicitation/create', 'roots/list'];
const NOTICES = ['notifications/message', 'notifications/resources/updated', 'notifications/tools/list_changed'];
const FRESH = { cacheMode: 'refresh' };

async function connect(target, { fetch, onNotification, onQuestion }) {
  const capabilities = { elicitation: { form: {}, url: {} }, sampling: {}, roots: { listChanged: true } };
  const modern = target.era === 'modern';
  const mode = modern ? 'auto' : 'legacy';
  const client = new Client({ name: 'interop-ts-v2', version: '2.0.0' }, { capabilities, versionNegotiation: { mode } });
  for (const method of QUESTIONS) client.setRequestHandler(method, request => onQuestion(method, request.params));
  for (const method of NOTICES) {
    client.setNotificationHandler(method, notification => onNotification(method, notification.params));
  }
  const transport = target.stdio
    ? new StdioClientTransport({ ...target.stdio, stderr: 'ignore' })
    : new StreamableHTTPClientTransport(new URL(target.url), { fetch });
  await client.connect(transport);
  const listening = new Map();
  return {
    notFoundCodes: [-32602], // this SDK shows the modern code in both eras
    revision: client.getNegotiatedProtocolVersion(),
    callTool: (params, options) => client.callTool(params, options),
    callLogged: async (params, level) => {
      if (modern) return client.callTool({ ...params, _meta: { [LOG_LEVEL_META_KEY]: level } });
      await client.setLoggingLevel(level);
      return client.callTool(params);
    },
    listTools: params => client.listTools(params, FRESH),
    listPrompts: params => client.listPrompts(params, FRESH),
    getPrompt: params => client.getPrompt(params),
    listResources: params => client.listResources(params, FRESH),
    listResourceTemplates: params => client.listResourceTemplates(params, FRESH),
    readResource: params => client.readResource(params, FRESH),
    complete: params => client.complete(params),
    subscribe: async uri => {
      if (!modern) return client.subscribeResource({ uri });
      listening.set(uri, await client.listen({ resourceSubscriptions: [uri] }));
    },
    unsubscribe: uri => (modern ? listening.get(uri).close() : client.unsubscribeResource({ uri })),
    listenToTools: async () => {
      if (!modern) return async () => undefined;
      const subscription = await client.listen({ toolsListChanged: true });
      return () => subscription.close();
    },
    close: async () => {
      if (!modern) await transport.terminateSession?.();
      await client.close();
    },
  };
}

await main({ name: 'ts-v2', connect });
