// Runs a plan with one SDK client and prints one JSON line per scenario: {client, target, scenario, ok, ms, detail}.
//
// A plan (see ../plans.py) is a list of targets; a target is an endpoint and the scenarios to run there over one
// connection. The SDKs differ in how handlers are registered and calls are made: each client script hands in an adapter
//   {name, connect(target, {fetch, onNotification, onQuestion}) -> peer}
// whose peer has request-shaped verbs. Every wait is bounded; a failure quotes the newest HTTP exchanges.
import { readFileSync } from 'node:fs';

const SCENARIO_MS = 8_000;
const CONNECT_MS = 30_000; // a gateway and six servers behind it may have to start first
const TARGET_MS = 90_000;
const TRACE_ENTRIES = 8;
const ENTRY_CHARS = 700;
const SHOWN_HEADERS = ['mcp-protocol-version', 'mcp-session-id', 'mcp-method', 'mcp-name', 'accept', 'last-event-id'];

export const ROOTS = [{ uri: 'file:///interop/one', name: 'one' }];

/** Answers a question as the plan's person, model and host would. */
export function answer(method, params) {
  if (method === 'roots/list') return { roots: ROOTS };
  if (method === 'sampling/createMessage') {
    const content = { type: 'text', text: 'hello from the client' };
    return { role: 'assistant', model: 'interop-model', stopReason: 'endTurn', content };
  }
  if (params.mode === 'url') return { action: 'accept' };
  const known = { name: 'Ada', confirm: true };
  const wanted = Object.keys(params.requestedSchema.properties);
  const content = Object.fromEntries(Object.entries(known).filter(([key]) => wanted.includes(key)));
  return { action: 'accept', content };
}

function clip(value) {
  return value.length > ENTRY_CHARS ? `${value.slice(0, ENTRY_CHARS)}…` : value;
}

/** A fetch that keeps the newest exchanges in `trace`, streams included. */
function tracedFetch(trace) {
  const add = line => {
    trace.push(clip(line));
    if (trace.length > TRACE_ENTRIES) trace.shift();
  };
  return async (url, init = {}) => {
    const headers = new Headers(init.headers);
    const shown = SHOWN_HEADERS.filter(name => headers.has(name)).map(name => `${name}: ${headers.get(name)}`);
    add(`> ${init.method ?? 'GET'} [${shown.join(', ')}] ${init.body ?? ''}`);
    const response = await fetch(url, init);
    const kind = response.headers.get('content-type') ?? '';
    if (response.body) {
      const copy = response.clone();
      const read = async () => {
        const decoder = new TextDecoder();
        for await (const chunk of copy.body) add(`< ${response.status} ${kind} ${decoder.decode(chunk, { stream: true })}`);
      };
      read().catch(() => undefined); // an aborted stream ends its copy as well
    } else add(`< ${response.status} ${kind}`);
    return response;
  };
}

function bounded(promise, milliseconds, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing after ${milliseconds} ms`)), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Notifications as they arrive, with a bounded wait for one that matches. */
class Inbox {
  constructor() {
    this.seen = [];
    this.waiters = new Set();
  }
  add(method, params) {
    this.seen.push({ method, params });
    for (const wake of this.waiters) wake();
  }
  wait(match, milliseconds) {
    const from = this.seen.length;
    let wake;
    const arrived = new Promise(resolve => {
      wake = () => {
        const found = this.seen.slice(from).find(match);
        if (found) resolve(found);
      };
      this.waiters.add(wake);
    });
    return bounded(arrived, milliseconds, 'notification').finally(() => this.waiters.delete(wake));
  }
}

class Mismatch extends Error {}

function check(held, expected, seen) {
  if (!held) throw new Mismatch(`expected ${JSON.stringify(expected)}, seen ${JSON.stringify(seen)}`);
}

function textOf(result) {
  return (result.content ?? []).map(block => block.text ?? `<${block.type}>`).join('\n');
}

function includesAll(seen, expected) {
  check(expected.every(item => seen.includes(item)), expected, seen);
  return `${seen.length} seen`;
}

async function pages(list, key) {
  const found = [];
  let cursor;
  let count = 0;
  do {
    const page = await list(cursor === undefined ? {} : { cursor });
    found.push(...page[key]);
    cursor = page.nextCursor;
    count += 1;
  } while (cursor !== undefined && count < 50);
  return found;
}

async function failure(attempt, codes) {
  let result;
  try {
    result = await attempt();
  } catch (error) {
    check(codes.includes(error.code), codes, { code: error.code, message: error.message });
    return `code ${error.code}`;
  }
  throw new Mismatch(`expected an error with a code of ${codes}, seen ${JSON.stringify(result)}`);
}

/** Repeats what triggers a notice until one arrives: a stream opened a moment ago may miss the first. */
async function noticed(inbox, match, trigger) {
  for (let attempt = 1; attempt <= 6; attempt += 1) {
    const arrived = inbox.wait(match, 1_000).then(() => true, () => false);
    await trigger(attempt);
    if (await arrived) return attempt;
  }
  throw new Mismatch(`no notice after 6 triggers; methods seen: ${inbox.seen.map(entry => entry.method)}`);
}

const KINDS = {
  async list_tools(peer, plan) {
    return includesAll((await pages(peer.listTools, 'tools')).map(tool => tool.name), plan.expect);
  },
  async tool_meta(peer, plan) {
    const tool = (await pages(peer.listTools, 'tools')).find(item => item.name === plan.tool);
    for (const [key, value] of Object.entries(plan.expect)) {
      check(JSON.stringify(tool?._meta?.[key]) === JSON.stringify(value), { [key]: value }, tool?._meta);
    }
  },
  async call(peer, plan) {
    const result = await peer.callTool({ name: plan.tool, arguments: plan.arguments });
    check(textOf(result).includes(plan.expect), plan.expect, result);
    check(Boolean(result.isError) === Boolean(plan.is_error), { isError: plan.is_error }, result);
    if (plan.structured) {
      const seen = JSON.stringify(result.structuredContent);
      check(seen === JSON.stringify(plan.structured), plan.structured, result);
    }
  },
  async call_error(peer, plan) {
    return failure(() => peer.callTool({ name: plan.tool, arguments: plan.arguments }), plan.codes);
  },
  async parallel(peer, plan) {
    const said = Array.from({ length: plan.times }, (_, index) => `number ${index}`);
    const results = await Promise.all(said.map(text => peer.callTool({ name: plan.tool, arguments: { text } })));
    check(JSON.stringify(results.map(textOf)) === JSON.stringify(said), said, results.map(textOf));
  },
  async progress(peer, plan) {
    const seen = [];
    // The second SDK also reports, here, the rounds in which it answers questions: that is not the server's progress.
    const isOwn = progress => progress.message?.startsWith('Fulfilling input required');
    const onprogress = progress => isOwn(progress) || seen.push(progress.progress);
    // Both SDKs drop progress notifications that arrive in one read with the answer, so the newest may be missing; where
    // this process was held up all of them, and the call is made again.
    for (let attempt = 0; attempt < 3 && seen.length === 0; attempt += 1) {
      const result = await peer.callTool({ name: plan.tool, arguments: plan.arguments }, { onprogress });
      check(textOf(result).includes(plan.expect), plan.expect, result);
    }
    const prefix = JSON.stringify(plan.progress.slice(0, seen.length));
    check(seen.length > 0 && JSON.stringify(seen) === prefix, plan.progress, seen);
  },
  async logging(peer, plan, inbox) {
    const arrived = inbox.wait(
      entry => entry.method === 'notifications/message' && JSON.stringify(entry.params.data).includes(plan.expect),
      SCENARIO_MS / 2,
    );
    arrived.catch(() => undefined);
    await peer.callLogged({ name: plan.tool, arguments: plan.arguments }, 'info');
    const entry = await arrived;
    check(entry.params.level === 'warning', 'warning', entry.params);
  },
  async cancellation(peer, plan) {
    const controller = new AbortController();
    const options = { signal: controller.signal, onprogress: () => controller.abort('interop') };
    let outcome = 'answered';
    await peer.callTool({ name: plan.tool, arguments: plan.arguments }, options).catch(error => {
      outcome = String(error);
    });
    check(controller.signal.aborted, 'a progress notification, then an aborted call', outcome);
    const result = await peer.callTool({ name: plan.probe, arguments: plan.arguments });
    check(textOf(result) === 'cancelled', 'cancelled', result);
    return outcome;
  },
  async completion(peer, plan) {
    const ref = plan.prompt ? { type: 'ref/prompt', name: plan.prompt } : { type: 'ref/resource', uri: plan.template };
    const context = plan.context ? { context: { arguments: plan.context } } : {};
    const result = await peer.complete({ ref, argument: plan.argument, ...context });
    check(JSON.stringify(result.completion.values) === JSON.stringify(plan.expect), plan.expect, result);
  },
  async list_prompts(peer, plan) {
    return includesAll((await pages(peer.listPrompts, 'prompts')).map(prompt => prompt.name), plan.expect);
  },
  async get_prompt(peer, plan) {
    const result = await peer.getPrompt({ name: plan.prompt, arguments: plan.arguments });
    check(JSON.stringify(result.messages).includes(plan.expect), plan.expect, result);
  },
  async list_resources(peer, plan) {
    return includesAll((await pages(peer.listResources, 'resources')).map(item => item.uri), plan.expect);
  },
  async list_templates(peer, plan) {
    const found = await pages(peer.listResourceTemplates, 'resourceTemplates');
    return includesAll(found.map(item => item.uriTemplate), plan.expect);
  },
  async read(peer, plan) {
    const result = await peer.readResource({ uri: plan.uri });
    const seen = result.contents.map(item => item.text ?? item.blob).join('\n');
    check(seen.includes(plan.expect), plan.expect, result);
    check(result.contents[0].uri === plan.uri, plan.uri, result);
  },
  async read_error(peer, plan) {
    return failure(() => peer.readResource({ uri: plan.uri }), peer.notFoundCodes ?? plan.codes);
  },
  async subscribe(peer, plan, inbox) {
    await peer.subscribe(plan.uri);
    const match = entry => entry.method === 'notifications/resources/updated' && entry.params.uri === plan.uri;
    const trigger = () => peer.callTool({ name: plan.tool, arguments: plan.arguments });
    const attempts = await noticed(inbox, match, trigger);
    await peer.unsubscribe(plan.uri);
    if (plan.toggle && attempts % 2 === 1) await trigger();
    return `${attempts} triggers`;
  },
  async list_changed(peer, plan, inbox) {
    const match = entry => entry.method === 'notifications/tools/list_changed';
    const end = await peer.listenToTools();
    const grown = [];
    const attempts = await noticed(inbox, match, attempt => {
      grown.push(`${plan.grown}_${attempt}`);
      return peer.callTool({ name: plan.tool, arguments: { name: grown.at(-1) } });
    });
    await end();
    const names = (await pages(peer.listTools, 'tools')).map(tool => tool.name);
    includesAll(names, grown.map(name => plan.prefix + name));
    return `${attempts} triggers`;
  },
  async caching(peer, plan) {
    const page = await peer.listResources({});
    check(page.ttlMs >= 0 && ['public', 'private'].includes(page.cacheScope), 'ttlMs and cacheScope', page);
  },
};

async function runTarget(adapter, target) {
  const trace = [];
  const inbox = new Inbox();
  let since = Date.now();
  const report = (scenario, ok, detail) => {
    const ms = Date.now() - since;
    since += ms;
    console.log(JSON.stringify({ client: adapter.name, target: target.name, scenario, ok, ms, detail: detail ?? '' }));
  };
  const failed = (scenario, error) => {
    const said = error instanceof Mismatch ? error.message : `${error?.stack ?? error} code=${error?.code}`;
    report(scenario, false, `${said}\nwire:\n${trace.join('\n')}`);
  };
  const hooks = {
    fetch: tracedFetch(trace),
    onNotification: (method, params) => inbox.add(method, params),
    onQuestion: (method, params) => answer(method, params),
  };
  const deadline = Date.now() + TARGET_MS;
  let peer;
  try {
    peer = await bounded(adapter.connect(target, hooks), CONNECT_MS, 'connect');
    check(peer.revision === target.revision, target.revision, peer.revision);
    report('connect', true, peer.revision);
  } catch (error) {
    failed('connect', error);
    for (const plan of target.scenarios) report(plan.name, false, 'not connected');
    await peer?.close();
    return;
  }
  for (const plan of target.scenarios) {
    if (Date.now() > deadline) {
      report(plan.name, false, `not run: the target took more than ${TARGET_MS} ms`);
      continue;
    }
    trace.length = 0;
    try {
      const detail = await bounded(KINDS[plan.kind](peer, plan, inbox), SCENARIO_MS, plan.name);
      report(plan.name, true, detail);
    } catch (error) {
      failed(plan.name, error);
    }
  }
  await bounded(peer.close(), SCENARIO_MS, 'close').catch(error => failed('close', error));
}

/** Runs the plan whose file is the script's last argument and exits 0 however the scenarios end. */
export async function main(adapter) {
  const { targets } = JSON.parse(readFileSync(process.argv.at(-1), 'utf8'));
  for (const target of targets) await runTarget(adapter, target);
  process.exit(0);
}
