# Everything runs in .venv, which `make setup` makes; see .ci/provision for what it installs.

.DEFAULT_GOAL := help
.PHONY: help setup dev-kernel demo test check imports bench bench-quick bench-many accuracy fuzz bare-machine clean

PYTHON := .venv/bin/python
DEMO_KERNEL := 6.12
SCRIPTS := .ci/provision .ci/dev-kernel .ci/run

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

setup: ## install what is needed: apt packages, .venv, kernels to boot (Debian 12)
	@.ci/provision

dev-kernel: setup ## build a kernel with kmemleak, allocation profiling and page_owner to boot
	@.ci/dev-kernel

demo: setup ## find the leaks of examples/leaky in a virtual machine
	@module=$$($(PYTHON) tests/support/build_modules.py --kernel $(DEMO_KERNEL) examples/leaky) || exit 1; \
	.venv/bin/kleak vm --kernel $(DEMO_KERNEL) -- module "$$module" --cycles 3 \
		-o build/demo.kleak --force; status=$$?; \
	[ $$status -eq 1 ] || { \
		echo "demo: expected exit status 1 (leaks found), got $$status" >&2; exit 1; }

test: setup $(if $(findstring vm,$(KLEAK_REQUIRE)),dev-kernel) ## all tiers of tests; ARGS='...' goes to pytest
	@$(PYTHON) -m pytest $(ARGS)

check: setup imports ## linters, types, formats
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@clang-format --dry-run -Werror bpf/*.[ch]
	@for script in $(SCRIPTS); do bash -n $$script || exit 1; done

# mypy does not follow the package-dir mapping of pyproject.toml: it gets the package as links.
imports:
	@rm -rf build/imports
	@mkdir -p build/imports/kleak
	@ln -s $(CURDIR)/frontend/* $(CURDIR)/parsers $(CURDIR)/bpf build/imports/kleak/

bench: setup ## cost of tracing on the running kernel, beside memleak-bpfcc (root)
	@$(PYTHON) bench/engine.py

bench-quick: setup ## the same in a minute: one round, fewer loads
	@$(PYTHON) bench/engine.py --quick

bench-many: setup ## the same with a million objects outstanding: an event, and the report (root)
	@$(PYTHON) -m bench.many_held
	@$(PYTHON) bench/many_outstanding.py

fuzz: setup ## a minute of damaged reports thrown at the parsers
	@$(PYTHON) tests/fuzz_parsers.py --seconds 60

accuracy: setup dev-kernel ## the corpus of leaks and innocents on three kernels; writes docs/accuracy.md
	@$(PYTHON) -m bench.accuracy $(ARGS)

bare-machine: setup ## prove .ci/provision on a bare debootstrap'ed Debian 12 (root)
	@$(PYTHON) -m tests.bare_machine $(ARGS)

clean: ## remove what was built; .venv and the kernels stay
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
