"""Measurements of Gatewright beside its neighbours: speed (`bench.run`) and isolation (`bench.isolation`)."""
