# The words a contributor needs. Each is a script; what it needs and leaves behind is said there.

.PHONY: help test demo demo-docker bench soak dist lint fmt

help:
	@echo 'make demo         deploys a real application under traffic, as plain processes (no root, no container engine)'
	@echo 'make demo-docker  the same with images, on a container engine'
	@echo 'make test         every suite that can run here, with a table at the end (SUITES="fmt unit" runs only those)'
	@echo 'make bench        measures, prints a table'
	@echo 'make soak         the long runs: hundreds of deploys, every kill'
	@echo 'make dist         the programs of a release: cutover, and static ones for servers'
	@echo 'make lint         clippy and formatting, as the tests want them'
	@echo 'make fmt          formats'

test:
	@scripts/test.sh $(SUITES)

demo:
	@scripts/demo.sh processes

demo-docker:
	@scripts/demo.sh docker

bench:
	@scripts/measure.sh bench

soak:
	@scripts/measure.sh soak

dist:
	@scripts/dist.sh

lint:
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt:
	cargo fmt --all
