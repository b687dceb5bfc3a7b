"""Gatewright: one gateway between AI hosts (MCP clients) and many MCP servers (backends)."""
