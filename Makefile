# SPDX-License-Identifier: GPL-3.0-or-later
# Every command here sets up what it needs below $(CACHE) and nowhere else.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

CACHE ?= $(if $(ONPREM_CIRCLECI_CACHE),$(ONPREM_CIRCLECI_CACHE),$(HOME)/.cache/onprem-circleci-server)
PYTHON ?= python3
LOCK := requirements/toolchain.lock
VENV := $(CACHE)/toolchain-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')-$(shell sha256sum $(LOCK) 2>/dev/null | cut -c1-12)
BIN := $(VENV)/bin
# ansible-test refuses a checkout that is not below ansible_collections, so what git knows is copied into such a tree.
TREE := $(CACHE)/trees/$(shell pwd -P | sha256sum | cut -c1-12)
COLLECTION := $(TREE)/ansible_collections/onprem/circleci_server
SHIPPED := $(TREE)/shipped/ansible_collections/onprem/circleci_server
# Virtual environments that ansible-test makes, kept for each version of it.
ANSIBLE_TEST := $(CACHE)/ansible-test-$(shell sed -n 's/^ansible-core==//p' $(LOCK) 2>/dev/null)
VERSION := $(shell sed -n 's/^version: //p' galaxy.yml)
TARBALL := build/onprem-circleci_server-$(VERSION).tar.gz
RUN := cd $(COLLECTION) && ANSIBLE_COLLECTIONS_PATH=$(TREE) PYTHONPATH=$(TREE) PATH=$(BIN):$$PATH ANSIBLE_HOME=$(TREE)/.ansible NO_COLOR=1
# skipped tests are told with their reason
PYTEST = $(RUN) $(BIN)/python -m pytest -q -rs
SANDBOX := $(BIN)/python -m sandbox

.PHONY: help
help: ## This list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | sort | awk -F'\t' '{printf "  make %-16s %s\n", $$1, $$2}'

# --- set-up ---------------------------------------------------------------------------------------------------------

# What the operating system must bring is named before it is installed, and installed from Debian by root only.
NEEDS := $(PYTHON) tools/needs.py

$(VENV)/.ready:
	@$(NEEDS) toolchain
	@echo "==> installing the tool chain into $(VENV) (about 2 minutes, once for each version of $(LOCK))"
	@rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement $(LOCK)
	@touch $@

.PHONY: toolchain
toolchain: $(VENV)/.ready ## Install the locked tool chain

.PHONY: tree
tree: toolchain
	@mkdir -p $(COLLECTION)
	@$(PYTHON) tools/copy_tree.py . $(COLLECTION)

.PHONY: lock
lock: ## Write requirements/toolchain.lock anew from toolchain.in
	@rm -rf $(CACHE)/lock && $(PYTHON) -m venv $(CACHE)/lock
	@$(CACHE)/lock/bin/pip install --quiet --disable-pip-version-check --requirement requirements/toolchain.in
	@{ echo "# Written by make lock from toolchain.in."; $(CACHE)/lock/bin/pip freeze; } > $(LOCK)
	@rm -rf $(CACHE)/lock

.PHONY: generate
generate: toolchain ## Write everything that is derived from arguments.yml and the catalog
	@$(BIN)/python tools/generate.py
	@$(BIN)/python plugins/plugin_utils/catalog/generate.py

.PHONY: build
build: tree ## Build the collection tarball
	@mkdir -p build && $(RUN) $(BIN)/ansible-galaxy collection build --force --output-path $(CURDIR)/build . >/dev/null
	@echo "==> $(TARBALL)"

# The look works from the inventory alone, on this machine, whatever the inventory says about connections.
INVENTORY ?= inventories/single-site
LOOK := $(CURDIR)/build/first-look
LOOK_ENV = ANSIBLE_HOME=$(LOOK)/.ansible ANSIBLE_COLLECTIONS_PATH=$(LOOK)/collections
.PHONY: first-look
first-look: build ## Change-request document for INVENTORY=inventories/single-site: nothing is contacted, nothing is changed
	@rm -rf $(LOOK)/collections && $(LOOK_ENV) $(BIN)/ansible-galaxy collection install --offline --force -p $(LOOK)/collections $(TARBALL) >/dev/null
	@$(LOOK_ENV) $(BIN)/ansible-playbook -i $(INVENTORY) onprem.circleci_server.plan \
	  -e ansible_connection=local -e 'ansible_python_interpreter={{ ansible_playbook_python }}' \
	  -e 'circleci_plan_dir=$(LOOK)/{{ circleci_site | default("site") }}'
	@echo "==> open the change-request.html named above in a browser; all of them lie below file://$(LOOK)/"

.PHONY: mirror-pyz
mirror-pyz: ## Build circleci-mirror.pyz, the mirror engine for any Python from 3.9 on
	@mkdir -p build && $(PYTHON) tools/build_mirror_pyz.py --output build/circleci-mirror.pyz

# --- cheap gates ----------------------------------------------------------------------------------------------------

.PHONY: drift lint ruff yamllint ansible-lint types units house sanity docs-lint
drift: tree ## Generated files are what their sources say
	@echo "==> drift"; $(RUN) $(BIN)/python tools/generate.py --check
	@$(RUN) $(BIN)/python plugins/plugin_utils/catalog/generate.py --check

lint: ruff yamllint ansible-lint ## ruff, yamllint and ansible-lint

ruff: tree ## Lint and import order of all Python
	@echo "==> ruff"; $(RUN) $(BIN)/ruff check --quiet .

yamllint: tree ## Style of all YAML that people write
	@echo "==> yamllint"; $(RUN) $(BIN)/yamllint --strict -c .config/yamllint.yml .

ansible-lint: tree ## Production profile, offline, with the rules of the house
	@echo "==> ansible-lint"; $(RUN) $(BIN)/ansible-lint -q --offline -c .config/ansible-lint.yml

MYPY := $(BIN)/mypy --config-file $(COLLECTION)/pyproject.toml --no-error-summary --cache-dir $(TREE)/.mypy_cache
# Tests of sandbox and tools import them by their own names, so they are read from the top of the tree, with both.
OF_SANDBOX := tests/chain tests/scenarios tests/upgrade tests/gateway tests/ports tests/sandbox tests/unit/sandbox tests/unit/standin tests/unit/tools
types: tree ## mypy --strict over all Python
	@echo "==> mypy"; cd $(TREE) && $(MYPY) $(OF_SANDBOX:%=--exclude '/%/') $(addprefix ansible_collections/onprem/circleci_server/,plugins tests benchmarks/ports)
	@cd $(COLLECTION) && $(MYPY) --exclude '^benchmarks/ports/' sandbox tools benchmarks roles .config/ansible-lint-rules $(OF_SANDBOX)

units: tree ## Unit tests
	@$(NEEDS) units
	@echo "==> units"; $(PYTEST) -n 2 $(or $(TESTS),tests/unit)

house: tree ## The rules of the house that a test can check
	@echo "==> house"; $(PYTEST) tests/house

docs-lint: tree ## antsibull-docs over the documentation of plugins and roles
	@echo "==> antsibull-docs"; $(RUN) HOME=$(TREE) $(BIN)/antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck .

sanity: build ## ansible-test sanity over what the tarball holds
	@echo "==> ansible-test sanity"; rm -rf $(SHIPPED) && mkdir -p $(SHIPPED) && tar -C $(SHIPPED) -xzf $(TARBALL)
	@git init -q $(SHIPPED) && echo /tests/output/ >> $(SHIPPED)/.git/info/exclude
	@cd $(SHIPPED) && PATH=$(BIN):$$PATH NO_COLOR=1 bash $(CURDIR)/tools/ansible_test.sh $(ANSIBLE_TEST) sanity $(SANITY)

# The emulator of Azure Blob. Its packages come from the npm registry that npm is set up with.
AZURITE := $(CACHE)/azurite-3.35.0
$(AZURITE)/.ready:
	@if command -v npm >/dev/null; then echo "==> installing Azurite into $(AZURITE)"; \
	  mkdir -p $(AZURITE) && npm install --silent --no-audit --no-fund --prefix $(AZURITE) azurite@3.35.0 && touch $@; \
	else echo "==> npm is not there: what needs Azurite is skipped"; fi

# S3 and EC2 of AWS as moto has them, in an environment of its own: it would decide versions of the tool chain.
MOTO := $(CACHE)/moto-5.2.5
$(MOTO)/.ready: | $(VENV)/.ready
	@echo "==> installing moto into $(MOTO)"; rm -rf $(MOTO) && $(PYTHON) -m venv $(MOTO)
	@$(MOTO)/bin/python -m pip install --quiet --disable-pip-version-check "moto[s3,server]==5.2.5" && touch $@

# What requirements/cloud.txt names, as the control host of a site in a cloud has it.
CLOUD_LIBRARIES := $(CACHE)/cloud-$(shell sha256sum requirements/cloud.txt | cut -c1-12)
$(CLOUD_LIBRARIES)/.ready: | $(VENV)/.ready
	@echo "==> installing the libraries of the clouds into $(CLOUD_LIBRARIES)"; rm -rf $(CLOUD_LIBRARIES) && $(PYTHON) -m venv $(CLOUD_LIBRARIES)
	@$(CLOUD_LIBRARIES)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/cloud.txt && touch $@

# Suites of make test-full that need no docker; each can be run by itself, and MIRROR, FIREWALL, NOMAD, STORES or BROWSER picks a part.
.PHONY: test-mirror test-firewall test-store test-cloud test-packages test-nomad test-runner test-browser
test-mirror: tree ## The mirror engine against real registries and a faulty network
	@$(NEEDS) mirror
	@echo "==> mirror"; $(PYTEST) $(or $(MIRROR),tests/integration_mirror)

test-firewall: tree ## The firewall engine on real packet filters, in network namespaces (root)
	@$(NEEDS) firewall
	@echo "==> firewall"; $(PYTEST) $(or $(FIREWALL),tests/integration_firewall)

test-browser: tree ## Report and change-request document in a real Chromium; screenshots below build/browser
	@$(NEEDS) browser
	@echo "==> browser"; $(RUN) SCREENSHOTS=$(CURDIR)/build/browser $(BIN)/python -m pytest -q -rs $(or $(BROWSER),tests/browser)

test-nomad: tree ## The infrastructure probe against a real Nomad, Docker, registry and store (4 minutes, root)
	@$(NEEDS) nomad programs
	@$(SANDBOX) artifacts nomad versitygw --build >/dev/null
	@echo "==> nomad"; $(PYTEST) $(or $(NOMAD),tests/integration_nomad)

test-runner: tree ## The role runner on a host of namespaces with a real systemd; the runner is a stand-in (2 minutes, root)
	@$(NEEDS) runner
	@echo "==> runner"; $(PYTEST) $(or $(RUNNER),tests/integration_runner)

test-bootstrap: build mirror-pyz ## bootstrap.sh on a bare, cut-off Debian with a real bundle (root; reaches the package indexes to make it)
	@$(NEEDS) bootstrap
	@$(SANDBOX) artifacts helm kubectl --build >/dev/null
	@echo "==> bootstrap"; $(RUN) ONPREM_CIRCLECI_TARBALL=$(CURDIR)/$(TARBALL) $(BIN)/python -m pytest -q -rs $(or $(BOOTSTRAP),tests/integration_bootstrap)

test-store: tree $(AZURITE)/.ready $(MOTO)/.ready ## Object stores, real ones on loopback, as the role object_storage runs them
	@$(NEEDS) store programs
	@$(SANDBOX) artifacts versitygw minio fake-gcs-server --build >/dev/null
	@echo "==> stores"; $(RUN) AZURITE=$(AZURITE)/node_modules/azurite/dist/src/blob/main.js MOTO_PYTHON=$(MOTO)/bin/python ONPREM_CIRCLECI_EVIDENCE=$(CURDIR)/build/stores $(BIN)/python -m pytest -q -rs -n 2 $(or $(STORES),tests/integration_store)

test-packages: tree ## RPM packages of the bundle, built, resolved, signed and installed by dnf in a root of its own (half a minute)
	@$(NEEDS) packages
	@echo "==> packages"; $(PYTEST) $(or $(PACKAGES),tests/integration_packages)

test-cloud: tree $(MOTO)/.ready $(CLOUD_LIBRARIES)/.ready ## What the verb cloud_prepare sets in clouds: AWS as moto has it, the others as strict stand-ins
	@echo "==> clouds"; $(RUN) MOTO_PYTHON=$(MOTO)/bin/python CLOUD_PYTHON=$(CLOUD_LIBRARIES)/bin/python $(BIN)/python -m pytest -q -rs -n 2 $(or $(CLOUDS),tests/integration_cloud)

.PHONY: scenario-table
scenario-table: toolchain ## Take over what the last runs of test-store and of the platform scenarios saw, and write docs/reference/scenarios.md
	@for kind in stores scenarios; do mkdir -p docs/reference/evidence/$$kind; \
	  for file in build/$$kind/*.json; do test ! -e $$file || cp $$file docs/reference/evidence/$$kind/; done; done
	@$(BIN)/python tools/generate.py

BENCHMARK ?= rules
.PHONY: benchmark-ports
benchmark-ports: tree ## Measure rules, verify or report beside rivals: BENCHMARK='rules --runs 3' (root)
	@$(NEEDS) firewall browser
	@$(RUN) $(BIN)/python -m ansible_collections.onprem.circleci_server.benchmarks.ports $(BENCHMARK)

.PHONY: test-postgres test-upgrade
test-postgres: tree ## Dumps, a migration and the way back on a real PostgreSQL on loopback
	@$(NEEDS) postgres
	@echo "==> postgres"; $(PYTEST) $(or $(POSTGRES),tests/integration_postgres)

.PHONY: test-databases
test-databases: tree ## What PostgreSQL, RabbitMQ and, with FERRETDB=, the protocol of MongoDB tell preflight, by real servers on loopback
	@$(NEEDS) databases
	@echo "==> databases"; $(PYTEST) $(or $(DATABASES),tests/integration_databases)

test-upgrade: check-machine build ## Upgrade 4.7.15 by 4.8.12 and 4.9.5 to 4.10.0 on the sandbox, failures on the way, and both ways back
	@$(SANDBOX) hold "make test-upgrade" -- $(BIN)/python -m pytest -q -rs -x tests/upgrade --tarball $(TARBALL) $(UPGRADE)

.PHONY: test-gateway
test-gateway: check-machine build $(if $(findstring versitygw_azure,$(GATEWAY)),$(AZURITE)/.ready) ## A gateway of the object store in the cluster, two replicas, on the sandbox; GATEWAY='--kind versitygw_azure' has Azurite behind it
	@$(SANDBOX) hold "make test-gateway" -- $(BIN)/python -m pytest -q -rs -x tests/gateway --tarball $(TARBALL) $(GATEWAY)

.PHONY: test-ports
test-ports: check-machine build ## Hosts with firewalld, ufw and nftables on the sandbox: ports foreseen, opened, proved, kept, taken back
	@$(SANDBOX) hold "make test-ports" -- $(BIN)/python -m pytest -q -rs -x tests/ports --tarball $(TARBALL) $(PORTS)

.PHONY: test-first-look
test-first-look: tree ## plan and preflight with the example inventories, from the installed tarball, without sandbox and docker
	@echo "==> first look"; $(RUN) ONPREM_CIRCLECI_EVIDENCE=$(CURDIR)/build/scenarios $(BIN)/python -m pytest -q -rs -n 2 $(or $(LOOKS),tests/first_look)

.PHONY: test-fast
test-fast: ruff drift yamllint types house docs-lint ansible-lint units sanity ## All gates that need no docker

# --- sandbox --------------------------------------------------------------------------------------------------------

.PHONY: check-machine sandbox sandbox-down demo test-sandbox test-cut test-molecule test-full test
# Before the tool chain: who may not carry the sandbox is told at once.
check-machine:
	@$(NEEDS) sandbox

sandbox: check-machine toolchain ## Build and start the sandbox: a connected network and a cut-off site
	@$(SANDBOX) up

sandbox-down: toolchain ## Take the sandbox away
	@$(SANDBOX) down

demo: check-machine build ## The main job: install into the cut-off site, show the report
	@$(SANDBOX) hold "make demo" -- $(BIN)/python tools/demo.py --tarball $(TARBALL)

test-sandbox: check-machine build ## The chain on the sandbox: empty, install, again, finished, probe, kill, negatives, uninstall
	@$(SANDBOX) hold "make test-sandbox" -- $(BIN)/python -m pytest -q -rs -x tests/chain --tarball $(TARBALL) $(CHAIN)

test-cut: check-machine toolchain ## The sandbox itself: its hosts, and the cut
	@$(SANDBOX) hold "make test-cut" -- sh -ec '$(SANDBOX) up; $(BIN)/python -m pytest -q -rs tests/sandbox'

test-molecule: check-machine build $(if $(filter azure,$(SCENARIO)),$(AZURITE)/.ready) ## One scenario of Molecule on the sandbox: make test-molecule SCENARIO=default
	@cd $(CURDIR) && PATH=$(BIN):$$PATH ONPREM_CIRCLECI_TARBALL=$(CURDIR)/$(TARBALL) $(SANDBOX) hold "make test-molecule" -- molecule test --scenario-name $(or $(SCENARIO),default)

test-full: ## The long suites, or a share of them: make test-full SHARD=1/3, or ONLY="test-mirror molecule/default"
	@$(PYTHON) tools/full.py $(if $(SHARD),--shard $(SHARD)) $(if $(ONLY),--only $(ONLY))

# First of all, so that nobody waits for minutes to be told that Go is missing or that the machine does not fit.
.PHONY: needs-test helm
needs-test:
	@$(NEEDS) sandbox toolchain units programs

# Tests of the stand-in chart are skipped without it.
helm: needs-test toolchain
	@$(SANDBOX) artifacts helm --build >/dev/null

# What lands is decided by these, cheapest first. What is left out is in test-full.
test: helm test-fast test-first-look test-store test-sandbox ## Everything that .ci/run runs
