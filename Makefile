# The two commands of the README, and short names for the scripts.
.PHONY: demo test check bench fuzz

demo:  # three servers behind one gateway, and a real call through it; ONCE=1 ends after the answer
	@scripts/install run
	@.venv/bin/gatewright demo $(if $(filter-out 0,$(ONCE)),--once)

test:  # everything: static checks, then every test, also when a check failed
	@scripts/install
	@checked=0; scripts/check || { checked=$$?; echo "scripts/check failed, see above; the tests follow" >&2; }; \
	scripts/test || exit $$?; [ $$checked = 0 ] || echo "The tests pass; scripts/check failed, see far above" >&2; exit $$checked

check bench fuzz:
	@scripts/$@
