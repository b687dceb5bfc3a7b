# The two commands of the README, and short names for the scripts.
.PHONY: demo test check bench fuzz

demo:  # three servers behind one gateway, and a real call through it; ONCE=1 ends after the answer
	@scripts/install run
	@.venv/bin/gatewright demo $(if $(filter-out 0,$(ONCE)),--once)

test:  # everything: static checks, then every test
	@scripts/install
	@scripts/check
	@scripts/test

check bench fuzz:
	@scripts/$@
