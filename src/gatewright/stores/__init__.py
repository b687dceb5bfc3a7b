"""What replicas share: sessions, their events, and a way to reach one another."""
