"""The Model Context Protocol without I/O: no sockets, no clock, no tasks, no logging."""
