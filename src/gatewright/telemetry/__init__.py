"""What the gateway says of itself: counts, latencies, how ready it is; merged over its workers, as Prometheus text."""
