// The official TypeScript SDK, first line (`@modelcontextprotocol/sdk`): speaks the handshake era only.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
  LoggingMessageNotificationSchema,
  ResourceUpdatedNotificationSchema,
  ToolListChangedNotificationSchema,
} from '@modelcontextprotocol/sdk/types.js';

import { main } from './scenarios.mjs';

const QUESTIONS = [CreateMessageRequestSchema, ElicitRequestSchema, ListRootsRequestSchema];
const NOTICES = [
  LoggingMessageNotificationSchema,
  ResourceUpdatedNotificationSchema,
  ToolListChangedNotificationSchema,
];

async function connect(target, { fetch, onNotification, onQuestion }) {
  const capabilities = { elicitation: { form: {}, url: {} }, sampling: {}, roots: { listChanged: true } };
  const client = new Client({ name: 'interop-ts-v1', version: '1.0.0' }, { capabilities });
  for (const schema of QUESTIONS) client.setRequestHandler(schema, ({ method, params }) => onQuestion(method, params));
  for (const schema of NOTICES) {
    client.setNotificationHandler(schema, ({ method, params }) => onNotification(method, params));
  }
  const transport = target.stdio
    ? new StdioClientTransport({ ...target.stdio, stderr: 'ignore' })
    : new StreamableHTTPClientTransport(new URL(target.url), { fetch });
  let revision;
  transport.setProtocolVersion = (set => version => {
    revision = version;
    set?.call(transport, version);
  })(transport.setProtocolVersion);
  await client.connect(transport);
  const callTool = (params, options) => client.callTool(params, undefined, options);
  return {
    revision,
    callTool,
    callLogged: async (params, level) => {
      await client.setLoggingLevel(level);
      return callTool(params);
    },
    listTools: params => client.listTools(params),
    listPrompts: params => client.listPrompts(params),
    getPrompt: params => client.getPrompt(params),
    listResources: params => client.listResources(params),
    listResourceTemplates: params => client.listResourceTemplates(params),
    readResource: params => client.readResource(params),
    complete: params => client.complete(params),
    subscribe: uri => client.subscribeResource({ uri }),
    unsubscribe: uri => client.unsubscribeResource({ uri }),
    listenToTools: async () => async () => undefined,
    close: async () => {
      await transport.terminateSession?.();
      await client.close();
    },
  };
}

await main({ name: 'ts-v1', connect });
