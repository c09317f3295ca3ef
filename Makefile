# The course's commands. `make help` lists them. Works with GNU Make 3.81 and later.

# The Python that makes the environment, and where the environment lies.
PYTHON ?= python3
VENV ?= .venv

# Further options of JupyterLab for `make lab`, such as LAB="--no-browser --port 8889".
LAB ?=

# Where PyTorch comes from: the address of a package index, or empty for pip's own.
# PyPI's PyTorch for Linux brings gigabytes of CUDA, so on Linux the default is PyTorch's CPU build.
#   an NVIDIA GPU:                         make quickstart TORCH_INDEX=https://download.pytorch.org/whl/cu130
#   pip is set up with a build of yours:   make quickstart TORCH_INDEX=
# An environment remembers what it was made with; name another value to change it.
TORCH_THERE := $(shell cat "$(VENV)/.torch" 2>/dev/null)
ifeq ($(origin TORCH_INDEX),undefined)
ifneq ($(TORCH_THERE),)
TORCH_INDEX := $(word 2,$(TORCH_THERE))
else ifeq ($(shell uname -s),Linux)
TORCH_INDEX := https://download.pytorch.org/whl/cpu
else
TORCH_INDEX :=
endif
endif
TORCH_PIN := $(shell sed -n '/^torch==/p' constraints.txt)
TORCH_WANTED := $(strip $(TORCH_PIN) $(TORCH_INDEX))

PY := $(VENV)/bin/python
PIP := "$(PY)" -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install quickstart lab book test test-deep test-oldest test-newest lint notebooks browser constraints clean FORCE

help: ## list the commands
	@echo "make VERB, where VERB is one of"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | while IFS='|' read -r verb text; do \
		printf '%-14s %s\n' "$$verb" "$$text"; done
	@echo "variables: PYTHON=$(PYTHON)  VENV=$(VENV)  TORCH_INDEX=$(TORCH_INDEX)  LAB=$(LAB)"

install: $(VENV)/.dev ## make the environment, with all that the course and its tests need

quickstart: $(VENV)/.course ## train a diffusion model on real digits (minutes); results in runs/quickstart/
	@"$(PY)" -m scripts.quickstart

lab: $(VENV)/.course ## open JupyterLab on your quickstart notebook once there is one, else on the syllabus
	@"$(PY)" -m scripts.lab $(LAB)

test: $(VENV)/.dev ## all that CI runs: format, lint, types, tests, browser tests, notebooks
	@"$(PY)" -m scripts.gate

test-deep: $(VENV)/.dev ## what is too long for every change: mutants, 50 kills, 100,000 damaged files, 2000 examples of each identity
	@"$(PY)" -m scripts.mutants
	@"$(PY)" -m pytest tests/test_properties.py --hypothesis-profile deep
	@"$(PY)" -m scripts.faults --kills 50
	@"$(PY)" -m scripts.fuzz --inputs 100000

# Beside the pinned releases: the oldest that pyproject.toml allows, and the newest that there are, of PyTorch too.
# An old library warns of what a newer one that it uses has deprecated: there, warnings are no errors.
test-oldest: ## the unit tests with the oldest releases that pyproject.toml allows
	@$(MAKE) VENV=.venv-oldest RESOLUTION=lowest-direct .venv-oldest/.resolved
	.venv-oldest/bin/python -m pytest -W default --ignore tests/agreement $(UNIT_TESTS)

test-newest: ## the unit tests with the newest releases; with PYTHON=python3.14 on that Python
	@$(MAKE) VENV=.venv-newest RESOLUTION=highest EXTRAS=course,dev,peers .venv-newest/.resolved
	.venv-newest/bin/python -m pytest $(UNIT_TESTS)

# Not the tests of the book, of the pins, or of a browser: they are about the pinned releases. The comparisons with other
# libraries meet the newest of these only.
EXTRAS := course,dev
UNIT_TESTS := --ignore tests/browser --ignore tests/test_environment.py --ignore tests/test_book.py

# uv calls PyTorch's indexes by the last part of their address: cpu, cu130.
$(VENV)/.resolved: $(VENV)/.made pyproject.toml FORCE
	$(PIP) install uv
	"$(PY)" -m uv pip install --upgrade --python "$(PY)" $(if $(TORCH_INDEX),--torch-backend $(notdir $(TORCH_INDEX))) \
		--resolution $(RESOLUTION) -e ".[$(EXTRAS)]"
	@"$(PY)" -m uv pip freeze --python "$(PY)"
	@touch "$@"

lint: $(VENV)/.dev ## format, lint and types only
	@"$(PY)" -m scripts.gate format lint types

notebooks: $(VENV)/.dev ## run all notebooks and bring them into their one stored form
	@"$(PY)" -m scripts.canonical_notebooks --execute

book: $(VENV)/.dev ## build the course as a web page that works without a kernel: book/_build/html/index.html
	@"$(PY)" -m scripts.book

browser: $(VENV)/.dev ## only the tests that drive a real browser, with every notebook in JupyterLab
	@"$(PY)" -m pytest tests/browser --every-notebook

constraints: $(VENV)/.dev ## write constraints.txt again, after a change of pyproject.toml
	@"$(PY)" -m scripts.make_constraints

clean: ## remove .venv, caches and build outputs; runs/ stays
	rm -rf .venv .venv-oldest .venv-newest build dist .coverage htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache book/_build
	find diffusion_edu benchmarks scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment itself. Each stamp is written only when its step has succeeded.
$(VENV)/.made:
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "There is no '$(PYTHON)' on this machine. Install Python 3.11 or later, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "'$(PYTHON)' is $$("$(PYTHON)" --version 2>&1) and the course needs 3.11 or later. Name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' cannot make environments: its venv module is missing. On Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv "$(VENV)"
	@touch "$@"

# PyTorch first and alone, so that its index is asked for nothing else. Its dependencies come with the rest.
$(VENV)/.torch: $(VENV)/.made $(if $(filter-out $(TORCH_THERE),$(TORCH_WANTED))$(filter-out $(TORCH_WANTED),$(TORCH_THERE)),FORCE)
	@"$(PY)" -c 'import sys; sys.exit(sys.version_info >= (3, 15))' || { \
		echo "The pinned PyTorch has builds for Python 3.11 to 3.14, and $(VENV) has $$("$(PY)" --version). Remove $(VENV) and name another: make PYTHON=python3.14" >&2; exit 1; }
	$(PIP) install --no-deps --force-reinstall $(if $(TORCH_INDEX),--index-url "$(TORCH_INDEX)") $(TORCH_PIN)
	@echo "$(TORCH_WANTED)" > "$@"

$(VENV)/.course: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt -e ".[course]"
	@touch "$@"

$(VENV)/.dev: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt -e ".[course,dev,book,peers]"
	@touch "$(VENV)/.course" "$@"

FORCE:
