"""The `gatewright` command."""
