"""Transports out: to HTTP endpoints, child processes and servers in this process, in either era."""
