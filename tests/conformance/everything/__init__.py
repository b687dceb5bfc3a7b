"""The server the conformance suite asks for: every tool, prompt and resource its scenarios name, in both eras."""
