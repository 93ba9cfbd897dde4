# Two commands do all the set-up: `make demo` and `make test`. Python with venv and make is all they
# need. Each environment is made once (a stamp file inside it) and again when its inputs change.

PYTHON ?= python3
# The demo shows the base install, without torch; the tests need the dev extra.
DEMO_ENV ?= .venv-demo
TEST_ENV ?= .venv
OPTIMUM_ENV ?= .venv-optimum
WORDS ?= deployment edge computer kitchen window
# As many processes as there are cores; `make test PYTEST_ARGS=-n0` for one.
PYTEST_ARGS ?= -n auto

# The repository root must not be on sys.path: its folders would hide other packages (CONTRIBUTING.md).
export PYTHONSAFEPATH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

SETUP := pyproject.toml setup.py
# A browser for reports, a server for `profile --via ssh`, an outside clock.
SYSTEM_PACKAGES := chromium openssh-server
APT := DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=60 \
	-o Acquire::Retries=0 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20
SANITIZED := build/sanitize/libedgedec_ops.so

.DEFAULT_GOAL := help
.PHONY: help demo test lint types unit native sanitize system-packages test-optimum clean

help:
	@echo "make demo   install edgedec, export the built-in checkpoint, pronounce a few words"
	@echo "make test   install the dev environment, then ruff, mypy and the whole test suite"
	@echo "make native compile the operator library again, after its sources changed"
	@echo "make sanitize   the operators' tests with AddressSanitizer and UBSan in the library"
	@echo "make system-packages   what some tests need of Debian or Ubuntu (chromium, ...), as root"
	@echo "make test-optimum   the tests of --via optimum, in an environment of their own"
	@echo "make clean  remove both environments and what the demo wrote"

demo: $(DEMO_ENV)/.installed
	$(DEMO_ENV)/bin/edgedec export g2p -o demo/g2p --force
	$(DEMO_ENV)/bin/edgedec inspect demo/g2p
	@printf '%s\n' $(WORDS) > demo/words.txt
	$(DEMO_ENV)/bin/edgedec run demo/g2p -f demo/words.txt -o demo/phonemes.txt
	@paste demo/words.txt demo/phonemes.txt

# All three run, whatever the first two find.
test: $(TEST_ENV)/.installed
	@failed=; for step in lint types unit; do \
		$(MAKE) --no-print-directory $$step || failed="$$failed $$step"; \
	done; test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

lint: $(TEST_ENV)/.installed
	$(TEST_ENV)/bin/ruff check .
	$(TEST_ENV)/bin/ruff format --check .

types: $(TEST_ENV)/.installed
	$(TEST_ENV)/bin/mypy -p edgedec
	$(TEST_ENV)/bin/mypy tests

# Installing compiled the library, but its sources may have changed. Without a compiler: without it.
unit: $(TEST_ENV)/.installed
	@$(MAKE) --no-print-directory native || true
	$(TEST_ENV)/bin/pytest $(PYTEST_ARGS)

native:
	$(PYTHON) kernels/cpu/build.py --objects build/native

# Python and ONNX Runtime come without sanitizers, which must be there first, and leak at their end.
sanitize: $(TEST_ENV)/.installed
	$(PYTHON) kernels/cpu/build.py --sanitize --objects build/sanitize --output $(SANITIZED)
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0 EDGEDEC_LIBRARY=$(CURDIR)/$(SANITIZED) \
	$(TEST_ENV)/bin/pytest tests/kernels -m 'not slow' $(PYTEST_ARGS)

test-optimum: $(OPTIMUM_ENV)/.installed
	$(OPTIMUM_ENV)/bin/pytest tests/optimum $(PYTEST_ARGS)

# Editable in all, so that the code in this folder is what runs.
$(DEMO_ENV)/.installed: $(SETUP)
	@echo 'Making $(DEMO_ENV) (base install); this downloads about 100 MB the first time.'
	$(PYTHON) -m venv --clear $(DEMO_ENV)
	$(DEMO_ENV)/bin/pip install -qq --editable .
	@touch $@

$(TEST_ENV)/.installed: $(SETUP)
	@echo 'Making $(TEST_ENV) (dev extra, with torch); this downloads a lot the first time.'
	$(PYTHON) -m venv --clear $(TEST_ENV)
	$(TEST_ENV)/bin/pip install -qq --editable '.[dev]'
	@# The simulator of Qualcomm's NPU, TensorRT-RTX (its builder needs no GPU), Triton: not everywhere.
	@for extra in npu gpu kernels; do \
		$(TEST_ENV)/bin/pip install -qq --editable ".[$$extra]" \
			|| echo "Nothing for this platform in the extra $$extra: tests that need it will be skipped."; \
	done
	@touch $@

# Never asks and never fails: without them, or without the right to install them, tests are skipped.
system-packages:
	@missing=; for package in $(SYSTEM_PACKAGES); do \
		dpkg -s $$package >/dev/null 2>&1 || missing="$$missing $$package"; \
	done; \
	if ! command -v apt-get >/dev/null; then echo "no apt-get here: install $(SYSTEM_PACKAGES) yourself"; \
	elif test -z "$$missing"; then echo "all there: $(SYSTEM_PACKAGES)"; \
	elif test "$$(id -u)" != 0; then echo "not root: sudo make system-packages would install$$missing"; \
	else $(APT) update </dev/null; for package in $$missing; do \
		$(APT) install --no-install-recommends $$package </dev/null \
			|| echo "could not install $$package: some tests will be skipped"; \
	done; fi

# torch first: optimum alone would take the newest build, with gigabytes for GPUs.
$(OPTIMUM_ENV)/.installed: $(SETUP)
	$(PYTHON) -m venv --clear $(OPTIMUM_ENV)
	$(OPTIMUM_ENV)/bin/pip install -qq torch==2.13.0
	$(OPTIMUM_ENV)/bin/pip install -qq --editable '.[optimum]' hypothesis jsonschema pytest pytest-xdist sentencepiece
	@touch $@

clean:
	rm -rf $(DEMO_ENV) $(TEST_ENV) $(OPTIMUM_ENV) demo build dist edgedec.egg-info src/edgedec.egg-info
