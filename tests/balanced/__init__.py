"""Three gateways on one Redis, and what may stand in front of them: a real nginx, or a turnstile."""
