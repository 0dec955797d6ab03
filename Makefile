# The two commands a newcomer needs: `make demo` and `make test`. Both set up everything themselves.
PYTHON ?= python3
DURATION ?= 60
NAME ?= mesh
SECONDS ?= 60
HOURS ?= 2
ENV := tools/env.sh
SOURCES := src test tools benchmarks examples launch training

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format bench soak fuzz audit lock tables weights wheels docs clean

help:            ## List these commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup:           ## Make .venv and build the workspace; returns at once when nothing changed
	@$(PYTHON) tools/setup.py

demo: setup      ## Run the whole system on the built-in drone simulator (DURATION=60)
	@$(ENV) worldsystem demo --duration $(DURATION) $(ARGS)

test:            ## Run all tests but the slow ones, two files at once
	@$(PYTHON) tools/setup.py --with-browser --with-test-peers
	@$(ENV) python -m pytest -n 2 --dist loadfile -m "not slow and not gpu" $(ARGS)

test-all:        ## Run every test this machine can run
	@$(PYTHON) tools/setup.py --with-browser --with-test-peers
	@$(ENV) python -m pytest $(ARGS)

lint: setup      ## Check style and types
	@$(ENV) ruff format --check $(SOURCES)
	@$(ENV) ruff check $(SOURCES)
	@$(ENV) mypy src tools benchmarks training

format: setup    ## Format the code
	@$(ENV) ruff format $(SOURCES)
	@$(ENV) ruff check --fix $(SOURCES)

bench: setup     ## Run one benchmark (NAME=mesh, QUICK=1 for a minute; ARGS: its parts, if it has some)
	@$(ENV) python benchmarks/bench_$(NAME).py $(ARGS)

soak: setup      ## Fly the simulator in a loop and watch for growth (HOURS=2; Ctrl-C writes what there is)
	@$(ENV) python benchmarks/bench_soak.py --hours $(HOURS)

fuzz: setup      ## Search for bytes that break the parsers (SECONDS=60 for all, ONLY="rtp sender"; needs atheris)
	@$(ENV) python test/fuzz/run.py --seconds $(SECONDS) $(if $(ONLY),--only $(ONLY)) $(ARGS)

weights: setup   ## Fetch SLAM3R's weights, or ARGS="--da3 base" (shows the licence; --accept-licence)
	@$(ENV) python tools/weights.py $(ARGS)

wheels: setup    ## Make wheels for `pip install --find-links dist worldsystem`
	@$(ENV) python tools/wheels.py $(ARGS)

audit:           ## Ask whether a pinned package has a known hole (needs network)
	@$(PYTHON) -m venv .audit && .audit/bin/pip install --quiet pip-audit
	@.audit/bin/pip-audit --requirement tools/constraints.txt --no-deps --disable-pip

lock: setup      ## List the hashes of all files that the pins may mean, after a pin has changed (needs network)
	@$(ENV) python tools/lock.py

tables: setup    ## Remake the figures of README.md and docs/figures.md from benchmarks/results
	@$(ENV) python tools/tables.py

docs: setup      ## Remake the generated pages
	@$(ENV) python tools/parameters.py

clean:           ## Remove everything that was built or installed
	rm -rf .venv .audit build dist install log
