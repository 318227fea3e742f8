# What one does with this repository. Everything runs as root on a Debian machine; see README.md.
.DEFAULT_GOAL := help
SHELL := /bin/bash
LAB := python3 -m tests.lab.harness
BIN := .venv/bin
APT_GET := salt/bootstrap/apt_get.py
# Programs in Python whose names do not say so.
PROGRAMS = $$(git grep -l '^\#!.*python' -- ':!*.*')
# Arguments for pytest, such as T=tests/unit or T='tests/lab/test_join.py -x'.
T ?=
# Two processes share the tests (tests/conftest.py).
BESIDE = --numprocesses=2 --dist=loadscope --no-loadscope-reorder
# At the end of a run: what took longest, tests and the fixtures before and after them (setup, teardown).
SLOWEST = --durations=30 --durations-min=5

.PHONY: help lab lab-down lab-status lab-shell mirror test test-full docs screenshots lint static bench

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 22

lab: ## build and start a cluster in containers on this machine
	$(call debian_packages,HOST_PACKAGES)
	@$(LAB) up

lab-down: ## stop it and remove all it made, but for the caches
	@$(LAB) down

lab-status: ## what runs in it
	@$(LAB) status

lab-shell: ## a shell on one of its machines: NODE=w1 [CMD='...']
	@$(LAB) shell "$(NODE)" $(if $(CMD),$(call quoted,$(CMD)))

mirror: ## what a site without a way out installs from: DIR=... (on a machine like its nodes)
	@$(if $(DIR),,$(error say where: make mirror DIR=/srv/mirror))salt/bootstrap/mirror.py $(call quoted,$(DIR))

test: $(BIN)/.ready ## static checks, unit tests, the core of the others; some only: make test T=tests/unit
	@$(BIN)/pytest $(SLOWEST) $(or $(T),--core $(BESIDE))

test-full: $(BIN)/.ready ## every test
	@$(BIN)/pytest $(SLOWEST) $(BESIDE)

docs: $(BIN)/.ready ## the documentation as web pages, in docs/_build
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env --builder html docs docs/_build
	@echo docs/_build/index.html

screenshots: $(BIN)/.ready ## take the README's pictures of the lab anew (docs/images)
	@mkdir -p docs/images
	@QHUB_SCREENSHOTS=1 $(BIN)/pytest tests/lab/test_notebooks.py -k 'asked_to_sign_in or own_account or full_partition'

bench: $(BIN)/.ready ## the figures, each beside what it is compared to
	@$(BIN)/python -m tests.bench

lint: static ## static checks, and every SLS rendered for every role
	@$(BIN)/pytest --quiet tests/unit/test_compile.py tests/unit/test_dashboards.py

static: $(BIN)/.ready $(BIN)/promtool ## those of them that no test makes anyway
	@$(BIN)/ruff check . $(PROGRAMS)
	@$(BIN)/ruff format --check . $(PROGRAMS)
	@$(BIN)/python -m tests.types
	@$(BIN)/yamllint --strict .
	@$(BIN)/salt-lint $$(git ls-files '*.sls')
	@shellcheck $$(git ls-files '*.sh') $$(git grep -l '^#!/bin/\(ba\)\?sh' -- ':!*.*') .ci/run
	@$(BIN)/promtool check rules formulas/prometheus/files/rules/*.yml
	@$(BIN)/promtool test rules tests/unit/rules/*.yml

$(BIN)/.ready: tests/requirements.lock tests/lab/harness/settings.py
	$(call debian_packages,TEST_PACKAGES)
	@echo "Installing the test environment into .venv (two minutes the first time)"
	@test -x $(BIN)/python || python3 -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement tests/requirements.lock
	@touch $@

# The package's program alone: the package would start Prometheus.
$(BIN)/promtool: $(BIN)/.ready
	@$(APT_GET) update --quiet=2 && cd $(BIN) && apt-get download --quiet=2 -o APT::Sandbox::User=root prometheus
	@dpkg-deb --fsys-tarfile $(BIN)/prometheus_*.deb | tar -xO ./usr/bin/promtool >$@.part
	@rm $(BIN)/prometheus_*.deb && chmod +x $@.part && mv $@.part $@

# Install what this machine lacks of a list in tests/lab/harness/settings.py.
define debian_packages
@packages="$$(python3 -c 'from tests.lab.harness import settings; print(*settings.$(1))')"; \
if ! dpkg-query --show --showformat='$${Status}\n' $$packages 2>/dev/null | grep -qv ' installed$$' \
    && dpkg-query --show $$packages >/dev/null 2>&1; then exit 0; fi; \
echo "Installing on this machine: $$packages"; \
$(APT_GET) update --quiet=2 && $(APT_GET) install --yes --quiet=2 --no-install-recommends $$packages >/dev/null
endef

# A word for the shell, whatever is in it.
quoted = '$(subst ','\'',$(1))'
