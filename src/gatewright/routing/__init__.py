"""Which backend a call goes to, and lists over many backends."""
