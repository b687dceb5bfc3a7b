"""The demonstration's own MCP servers: small, useful, and free of anything but the standard library and orjson."""
