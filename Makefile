# `make` lists what there is to do.
PROJECT := {{cookiecutter.project_slug}}
PYTHON ?= python3
VENV := .venv
PROJECT_VENV := .venv-project
# Where the name of a baked project matters, whatever the default is.
SLUG := my_service
# Tests start Python hundreds of times: without bytecode, each start would compile all packages again.
unexport PYTHONDONTWRITEBYTECODE
# What mypy knows of the same packages and files serves all baked projects.
MYPY_CACHE = $(abspath build/mypy)
# Seconds since 1970.
STARTED := $(shell date +%s)
RUFF_CHECK = $(VENV)/bin/ruff check --no-cache --extend-exclude pyproject.toml
PIN = $(VENV)/bin/uv pip compile -q --upgrade --python-version 3.11 --universal --generate-hashes \
  --no-header --no-annotate pyproject.toml

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 28

demo: $(VENV)/ready ## Generate a project with the default answers, set it up and serve it (ARGS=--check: and stop)
	$(VENV)/bin/python tests/demo.py $(ARGS)

quick: $(PROJECT_VENV)/ready ## Run what is enough while you edit: bake all choices, check the hooks, lint and test one project
	$(VENV)/bin/ruff format --no-cache --check .
	$(RUFF_CHECK) .
	$(VENV)/bin/python -m pytest -q -n auto tests/test_answers.py tests/test_generation.py tests/test_output_check.py
	rm -rf build/quick
	$(VENV)/bin/cookiecutter . --no-input -o build/quick project_slug=$(SLUG)
	MYPY_CACHE_DIR='$(MYPY_CACHE)' $(MAKE) -C build/quick/$(SLUG) lint test \
	  VENV='$(abspath $(PROJECT_VENV))' -o '$(abspath $(PROJECT_VENV))/ready'

test: lint test-template test-infrastructure ## Run all tests
	@# For `make bench`: how long all of it took. With ARGS only some tests run; without root the slowest are left out.
	@test -n '$(ARGS)' -o "$$(id -u)" != 0 || { mkdir -p build && \
	  echo "$$(($$(date +%s) - $(STARTED))) $$(git describe --always --exclude '*' --dirty 2>/dev/null || echo unknown)" \
	  > build/test-seconds; }

test-template: $(PROJECT_VENV)/ready ## Run the tests of questions, hooks, output and READMEs (ARGS: for pytest)
	MYPY_CACHE_DIR='$(MYPY_CACHE)' $(VENV)/bin/python -m pytest -n auto --no-loadscope-reorder $(ARGS)

test-infrastructure: $(PROJECT_VENV)/ready ## Run the tests of the project's infrastructure in a baked project (ARGS: for pytest)
	rm -rf build/infrastructure
	$(VENV)/bin/cookiecutter . --no-input -o build/infrastructure project_slug=$(SLUG) example=blog deploy=systemd
	cp -R tests/infrastructure build/infrastructure/$(SLUG)/tests/
	cd build/infrastructure/$(SLUG) && \
	  MYPY_CACHE_DIR='$(MYPY_CACHE)' $(abspath $(PROJECT_VENV))/bin/mypy tests/infrastructure
	cd build/infrastructure/$(SLUG) && \
	  $(abspath $(PROJECT_VENV))/bin/python -m pytest -n auto --no-loadscope-reorder tests/infrastructure \
	  $(or $(ARGS),--cov=config --cov=database --cov=storage --cov=backup)

pictures: $(PROJECT_VENV)/ready ## Draw what the README shows: docs/pictures/
	$(PROJECT_VENV)/bin/python tests/pictures.py

lint: $(VENV)/ready ## Format, lint and types of the template and of the code in it
	$(VENV)/bin/ruff format --no-cache --check .
	$(RUFF_CHECK) .
	$(VENV)/bin/mypy

format: $(VENV)/ready ## Format the code, fix what ruff can fix, and show what is left
	$(RUFF_CHECK) -q --fix-only .
	$(VENV)/bin/ruff format --no-cache .
	$(RUFF_CHECK) .

bench: $(PROJECT_VENV)/ready ## Measure what is promised, as root: docs/benchmarks/ (ARGS="web storage": only these)
	$(PROJECT_VENV)/bin/python -m benchmarks $(ARGS)

lock: $(VENV)/ready ## Pin all packages again, newest versions, here and in the project
	$(PIN) --group dev -o requirements-dev.txt
	rm -rf build/lock
	$(VENV)/bin/cookiecutter . --no-input -o build/lock project_slug=$(SLUG)
	$(MAKE) -C build/lock/$(SLUG) lock UV='$(abspath $(VENV))/bin/uv'
	cp build/lock/$(SLUG)/requirements*.txt '$(PROJECT)/'
	@# These share an environment with the project, whatever versions they ask for.
	$(PIN) --group infrastructure --override '$(PROJECT)/requirements-dev.txt' -o requirements-infrastructure.txt

$(VENV)/ready: requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	@# Of all packages, pip installs only uv, which needs a tenth of its time for the others.
	sed -n '/^uv==/,/[^\\]$$/p' requirements-dev.txt > $(VENV)/uv.txt
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	$(VENV)/bin/uv pip sync -q --require-hashes --python $(VENV)/bin/python requirements-dev.txt
	touch $@

# The generated projects of all tests share one environment.
$(PROJECT_VENV)/ready: $(PROJECT)/requirements-dev.txt requirements-infrastructure.txt $(VENV)/ready
	$(VENV)/bin/uv venv -q --allow-existing --python $(PYTHON) $(PROJECT_VENV)
	$(VENV)/bin/uv pip sync -q --require-hashes --python $(PROJECT_VENV)/bin/python \
	  '$(PROJECT)/requirements-dev.txt' requirements-infrastructure.txt
	touch $@

clean: ## Remove environments, caches and what the demo made; also from the project's folder
	rm -rf $(VENV) $(PROJECT_VENV) build
	find . -name .git -prune -o \( -name __pycache__ -o -name '.*_cache' -o -name .hypothesis \) -prune -exec rm -rf {} +

.PHONY: help demo quick test test-template test-infrastructure pictures lint format bench lock clean
