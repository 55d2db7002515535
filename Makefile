# Everything a checkout needs: `make demo` asks the embedded model a question, `make test` runs the tests.
PYTHON ?= python3
# torch is only for NVIDIA GPUs (several GB): 1 installs it, 0 does not; by itself it follows the driver.
CUDA ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo 1 || echo 0)
EXTRAS := $(if $(filter 1,$(CUDA)),[cuda],)
BIN := .venv/bin
STAMP := .venv/.installed$(if $(filter 1,$(CUDA)),-cuda,)

.PHONY: install demo test lint clean

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

lint: .venv/.tested
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python docs/structure.py --check

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache
