"""Transports in: from a socket to a call, and back."""
