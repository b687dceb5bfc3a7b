// The tasks extension as the official package for it drives it (`@modelcontextprotocol/ext-tasks`, which the Inspector
// brings along): `tasks_v2.mjs URL PREFIX`. Prints what came, as JSON.
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { createTaskSessionFromClient } from '@modelcontextprotocol/ext-tasks/client';

const REVISION = '2026-07-28';
const [url, prefix] = process.argv.slice(2);
const say = message => console.log(JSON.stringify(message));
const clientInfo = { name: 'interop-tasks-v2', version: '1.0.0' };
const clientCapabilities = { elicitation: { form: {} }, extensions: { 'io.modelcontextprotocol/tasks': {} } };

// The package leaves requests about tasks to its host, as the SDK's codecs do not know them.
let lastId = 1000;
async function rawDispatch({ method, params }) {
  const name = params.taskId ?? params.name;
  const response = await fetch(url, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'mcp-protocol-version': REVISION,
      'mcp-method': method,
      ...(name === undefined ? {} : { 'mcp-name': name }),
    },
    body: JSON.stringify({ jsonrpc: '2.0', id: ++lastId, method, params }),
  });
  const message = await response.json();
  return message.error ? { kind: 'error', error: message.error } : { kind: 'result', result: message.result };
}

async function opened() {
  const client = new Client(clientInfo, { capabilities: clientCapabilities, versionNegotiation: { mode: 'auto' } });
  await client.connect(new StreamableHTTPClientTransport(new URL(url)));
  const session = createTaskSessionFromClient(client, {
    endpointId: 'interop',
    rawDispatch,
    v2RequestFraming: { protocolVersion: REVISION, clientInfo, clientCapabilities },
    onInputRequest: async ({ kind, params }, { taskId, inputId }) => {
      say({ type: 'asked', kind, task: taskId, input: inputId });
      return { action: 'accept', content: { [Object.keys(params.requestedSchema.properties)[0]]: 'yes' } };
    },
  });
  return { client, session };
}

const { client, session } = await opened();
say({ type: 'offered', extensions: client.getServerCapabilities().extensions });

for (const tool of ['multi_input', 'test_tool_with_task', 'failing_job', 'protocol_error_job', 'greet']) {
  const execution = await session.callTool(`${prefix}${tool}`, {});
  const { outcome } = await execution.settle();
  const { status, result, error } = outcome;
  const text = result?.content?.[0]?.text;
  say({ type: 'ended', tool, kind: execution.kind, task: execution.handle?.taskId, status, text, error: error?.message });
}

// One is left to itself; a program that starts anew finds it by its reference, and cancels it.
const left = await session.callTool(`${prefix}slow_compute`, { seconds: 3600 });
const reference = left.serializeReference();
await session.close();
await client.close();
const anew = await opened();
const again = await anew.session.resumeTask(reference);
await again.cancel();
say({ type: 'cancelled', status: (await again.settle()).outcome.status });
const refused = await anew.session.task(`${reference.taskId}x`).snapshot().catch(error => error);
say({ type: 'refused', code: refused.code, message: refused.message });
await anew.session.close();
await anew.client.close();
