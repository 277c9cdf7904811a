# Two commands need nothing but Python >= 3.11, git and make: `make demo` and `make test`.
UV_VERSION = 0.13.9
VENV = .venv
BIN = $(VENV)/bin
export UV_PROJECT_ENVIRONMENT = $(VENV)
# Every test starts programs: without compiled modules each of them would compile Headway again.
export PYTHONDONTWRITEBYTECODE =

# Tests that need no server and take milliseconds.
FAST = not (e2e or slow or docker or kubernetes or postgres or redis or browser)

.PHONY: check demo test lint fast unit e2e docs reference version clean

# Before every commit: under 90 s on 2 cores.
check: lint fast

demo: $(VENV)/ready
	$(BIN)/headway demo

test: lint unit e2e

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fast: $(VENV)/ready
	$(BIN)/pytest -q -n 2 --dist loadgroup -m "$(FAST)"

unit: $(VENV)/ready
	$(BIN)/pytest -q -n 3 --dist loadgroup -m "not e2e" --cov --cov-report=term

e2e: $(VENV)/ready
	$(BIN)/pytest -q -n 3 --dist loadfile --no-loadscope-reorder -m e2e

# The documentation site, in site/. Tests check its links (tests/docs/test_site.py) and run the commands on its pages.
docs: $(VENV)/ready
	$(BIN)/zensical build --strict --clean

# Reference pages that are generated from the code.
reference: $(VENV)/ready
	$(BIN)/python -m headway.cli.reference_docs

# The next version follows from the fragments in changelog.d/: a minor version if one is `added` or `changed`, else a patch version.
version: $(VENV)/ready
	@PATH="$$PATH:$(CURDIR)/.uv/bin" uv version --no-sync --bump $(if $(wildcard changelog.d/*.added.md changelog.d/*.changed.md),minor,patch)
	$(BIN)/towncrier build --yes --version "$$(PATH="$$PATH:$(CURDIR)/.uv/bin" uv version --short)"
	$(MAKE) reference

# Everything comes from the lock file; uv itself is put beside it when there is none on the PATH.
$(VENV)/ready: uv.lock pyproject.toml
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Headway needs Python 3.11 or newer, this is " + sys.version)'
	@command -v uv >/dev/null || test -x .uv/bin/uv || { python3 -m venv .uv \
		|| { echo "python3 -m venv does not work: install it (Debian: apt-get install python3-venv)"; exit 1; }; \
		.uv/bin/pip install --quiet uv==$(UV_VERSION); }
	@PATH="$$PATH:$(CURDIR)/.uv/bin" uv sync --frozen --all-extras --compile-bytecode $(if $(PYTHON),--python $(PYTHON))
	@touch $@

clean:
	rm -rf .venv .venv-newest .uv .cache site
