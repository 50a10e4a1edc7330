# `make` prints the commands. Everything runs in .venv, which `make install` makes (see scripts/install).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PY := .venv/bin/python
# Tests share two cores with five services: more threads make everything slower.
export OMP_NUM_THREADS ?= 2
# Threads that wait give their core away (docs/decisions/0045).
export OMP_WAIT_POLICY ?= PASSIVE

# A file's tests stay together in one of these (docs/decisions/0170).
TEST_PROCESSES ?= 2

.PHONY: help install demo check test test-slow test-xtts bench bench-large bench-xtts quality fixtures up down golden docs

help: ## print this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: ## everything that the platform needs on this machine (scripts/install --help)
	@scripts/install

demo: ## the whole journey: speech in, voice trained, recording converted; results in var/demo
	@scripts/install
	@$(PY) -m scripts.demo $(if $(VOICE),--voice "$(VOICE)") $(if $(FRESH),--fresh)

check: ## style, types, who imports whom, spelling, tables in the docs
	@scripts/install --dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	PYTHONPATH=. .venv/bin/lint-imports
	.venv/bin/codespell
	$(PY) -m scripts.docs_tables --check

test: ## every test that takes seconds, each with its time
	@scripts/install --dev
	$(PY) -m pytest -n $(TEST_PROCESSES) -m "not slow" --durations=0 --durations-min=0.005

test-slow: ## the rest: training, kills, outages, whole journeys
	@scripts/install --dev
	$(PY) -m pytest -n $(TEST_PROCESSES) -m "slow and not xtts" --durations=0 --durations-min=0.005 --timeout=900

test-xtts: ## text-to-speech for real, on a tiny network; coqui-tts comes into .venv-xtts
	@scripts/install --dev
	@scripts/install-xtts
	XTTS_PYTHON=$(CURDIR)/.venv-xtts/bin/python $(PY) -m pytest -n $(TEST_PROCESSES) -m xtts --durations=0 --durations-min=0.005 --timeout=900

bench: ## figures of this machine, into var/bench/<date>.json
	@scripts/install --dev
	@$(PY) -m scripts.bench

bench-large: ## retrieval indices of a million frames of the speech in VOICE_CORPUS
	@scripts/install --dev
	@[[ -n "$${VOICE_CORPUS:-}" ]] || { echo "make bench-large needs VOICE_CORPUS: a folder of speech" && exit 1; }
	@$(PY) -m scripts.bench_index --frames 1000000

bench-xtts: ## the true-size network of XTTS with random weights: memory, seconds per step, load time (13 GB, 10 minutes)
	@scripts/install --dev
	@scripts/install-xtts
	@[[ -n "$${VOICE_CORPUS:-}" ]] || { echo "make bench-xtts needs VOICE_CORPUS: a folder with ljspeech/" && exit 1; }
	@$(PY) -m scripts.bench_xtts

quality: ## how good the lite voice is on the recordings in VOICE_CORPUS: trains, converts, measures (40 minutes)
	@scripts/install --dev
	@[[ -n "$${VOICE_CORPUS:-}" ]] || { echo "make quality needs VOICE_CORPUS: a folder with ljspeech/ and librispeech/" && exit 1; }
	$(PY) -m scripts.quality --target "$$VOICE_CORPUS/ljspeech" --sources "$$VOICE_CORPUS/librispeech" --output var/quality \
		--minutes 1 3 10 --speech 30 60 --compare-random

fixtures: ## compare with RVC's own numbers in VOICE_FIXTURES and renew the table in docs/rvc-compatibility.md
	@scripts/install --dev
	@[[ -n "$${VOICE_FIXTURES:-}" ]] || { echo "make fixtures needs VOICE_FIXTURES: a folder of reference data" && exit 1; }
	scripts/check-fixtures "$$VOICE_FIXTURES" --quiet --json var/fixtures.json --markdown docs/rvc-compatibility.md

up: ## the five services and a broker on this machine, until Ctrl-C
	@scripts/install
	@scripts/dev-up.sh --no-docker

down: ## stop what `make up` left running in another terminal
	@$(PY) -m scripts.stack down

golden: ## renew the stored outputs of tests/golden, on purpose
	@scripts/install --dev
	$(PY) -m pytest tests/golden --renew-golden

docs: ## renew the generated tables in docs/
	@scripts/install --dev
	$(PY) -m scripts.docs_tables
