// The tasks of 2025-11-25 as the official TypeScript SDK v1 drives them: `tasks_v1.mjs URL PREFIX`.
// Calls the research tool of the reference server as a task, answers its question, and prints what came, as JSON.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { CallToolResultSchema, ElicitRequestSchema } from '@modelcontextprotocol/sdk/types.js';

const RELATED = 'io.modelcontextprotocol/related-task';
const [url, prefix] = process.argv.slice(2);
const say = message => console.log(JSON.stringify(message));

const client = new Client({ name: 'interop-tasks-v1', version: '1.0.0' }, { capabilities: { elicitation: { form: {} } } });
client.setRequestHandler(ElicitRequestSchema, ({ params }) => {
  say({ type: 'asked', task: params._meta?.[RELATED]?.taskId });
  const choice = params.requestedSchema.properties.interpretation.oneOf[0].const;
  return { action: 'accept', content: { interpretation: choice } };
});
const transport = new StreamableHTTPClientTransport(new URL(url));
await client.connect(transport);
say({ type: 'offered', tasks: client.getServerCapabilities().tasks });
await client.listTools();

const tasks = client.experimental.tasks;
const call = (ambiguous, task) =>
  tasks.callToolStream(
    { name: `${prefix}simulate-research-query`, arguments: { topic: 'python', ambiguous } },
    CallToolResultSchema,
    { task },
  );

for await (const message of call(true, { ttl: 60_000 })) {
  say({
    type: message.type,
    task: message.task?.taskId,
    status: message.task?.status,
    text: message.result?.content?.[0]?.text,
    error: message.error && String(message.error),
  });
}

// A second one is listed with the first, and cancelled.
let second;
for await (const message of call(false, { ttl: 60_000 })) {
  second = message.task.taskId;
  break;
}
say({ type: 'listed', tasks: (await tasks.listTasks()).tasks.map(task => task.taskId), second });
say({ type: 'cancelled', status: (await tasks.cancelTask(second)).status });
const refused = await tasks.getTask(`${second}x`).catch(error => error);
say({ type: 'refused', code: refused.code });

await transport.terminateSession();
await client.close();
