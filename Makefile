# Everything a checkout needs: `make demo` asks the embedded model a question, `make test` runs the tests.
PYTHON ?= python3
# torch is only for NVIDIA GPUs (several GB): 1 installs it, 0 does not; by itself it follows the driver.
CUDA ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo 1 || echo 0)
EXTRAS := $(if $(filter 1,$(CUDA)),[cuda],)
BIN := .venv/bin
STAMP := .venv/.installed$(if $(filter 1,$(CUDA)),-cuda,)

.PHONY: install demo test test-clients test-mutations lint clean test-cuda

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.$(EXTRAS)'
	@touch $@

.venv/.tested: $(STAMP) constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	if command -v npm >/dev/null 2>&1; then npm install --silent --no-fund --no-audit --prefix .venv/node ollama@0.6.4; fi
	@touch $@

demo: install
	@$(BIN)/python -m ollama_compat.demo

test: .venv/.tested
	$(BIN)/python -m pytest

# Clients of other people, each against the real server; they live in an environment of their own, which takes 700 MB.
test-clients: .venv/.tested .venv-clients/.installed
	.venv-clients/bin/python -m pytest -c tests/clients/pytest.ini tests/clients
	$(BIN)/python -m pytest tests/e2e

.venv-clients/.installed: tests/clients/requirements.txt tests/clients/package.json
	test -x .venv-clients/bin/python || $(PYTHON) -m venv .venv-clients
	.venv-clients/bin/python -m pip install --quiet uv
	.venv-clients/bin/uv pip install --quiet --python .venv-clients/bin/python -r tests/clients/requirements.txt
	cp tests/clients/package.json .venv-clients/
	npm install --silent --no-fund --no-audit --prefix .venv-clients
	@touch $@

# On a machine with an NVIDIA GPU: its kernels and the hybrid executor.
test-cuda: .venv/.tested
	$(BIN)/python -m pytest tests/runtime/test_hybrid.py tests/runtime/test_cuda_source.py tests/runtime/test_mailbox.py

# Plants some hundred faults in kernels, one at a time: the tests have to notice each. Some minutes.
test-mutations: .venv/.tested
	$(BIN)/python tests/mutate.py

lint: .venv/.tested
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python docs/structure.py --check

clean:
	rm -rf .venv .venv-clients build *.egg-info .mypy_cache .ruff_cache .pytest_cache
