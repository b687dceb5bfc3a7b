"""The official MCP conformance suite as a gate: fixture server, client adapter, runner and recorded baselines."""
