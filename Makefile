# Everything runs in .venv, which the first target that needs it makes from the machine's Python; the oracles,
# with PyTorch and the other public implementations, have .venv-oracles of their own.
#
#   make demo     install, simulate BERT-base on a shipped accelerator, write a report and a trace
#   make test     install, then lint, types, layers and tests
#   make test-oracles   compare every mechanism with its public implementation (installs 1.3 GB, torch mostly)
#   make golden   rewrite what the tests compare with: the documents' output blocks and the JSON Schemas
#   make bench    what the commands cost; `make bench-scalesim` sets it beside SCALE-Sim (a quarter of an hour)
#   make bench-sweep   what sweeps cost, and the same beside ZigZag (ten minutes)
#   make bitstream   install the FPGA tools, write the Verilog of an attention unit, test it, place and route it
#   make fpga     place and route units of the table in docs/rtl.md again (half an hour)
#   make clean    remove everything that these made

SUITABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python3.14 python; do \
    $$p -c '$(SUITABLE)' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
# setuptools warns at length that ./tilewright might be imported in place of the install; here they are the same
PIP_INSTALL := PYTHONWARNINGS='ignore:Editable installation' \
    $(BIN)/python -m pip install --quiet --disable-pip-version-check
ORACLES_INSTALL := .venv-oracles/bin/python -m pip install --quiet --disable-pip-version-check --no-deps
TORCH := torch==2.13.0
TORCH_INDEX := https://download.pytorch.org/whl/cpu

# Compile each module once, whatever the environment says: the tests start hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-oracles lint golden bench bench-scalesim bench-sweep bitstream fpga clean

demo: .venv/.installed
	@mkdir -p demo
	$(BIN)/tilewright run gemmini-default bert-base --report demo/report.html --trace demo/trace.json

test: lint
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m 'not slow'
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m slow

test-oracles: .venv-oracles/.installed
	.venv-oracles/bin/python -m pytest -q tests/oracles

lint: .venv/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

golden: .venv/.installed-dev
	$(BIN)/tilewright schema accelerator > docs/schema/accelerator.schema.json
	$(BIN)/tilewright schema workload > docs/schema/workload.schema.json
	$(BIN)/tilewright schema space > docs/schema/space.schema.json
	$(BIN)/tilewright schema suite > docs/schema/suite.schema.json
	$(BIN)/python docs/regenerate.py
	$(BIN)/python -m docs.validation_plot

bench: .venv/.installed
	$(BIN)/python -m benchmarks.speed

bench-scalesim: .venv/.installed
	$(BIN)/python -m benchmarks.scalesim --size 128
	$(BIN)/python -m benchmarks.scalesim --size 32

bench-sweep: .venv/.installed
	$(BIN)/python -m benchmarks.sweep_speed
	$(BIN)/python -m benchmarks.zigzag

bitstream: .venv/.installed-fpga
	@mkdir -p demo
	$(BIN)/tilewright rtl attention-unit-8x8 -o demo/rtl --bench --synth ecp5

fpga: .venv/.installed-dev
	$(BIN)/python -m benchmarks.fpga_table --measure 4x4@lfe5u-85f-8 8x8@lfe5u-85f-8 4x4@xc7 8x8@xc7 16x16@xc7

clean:
	rm -rf .venv .venv-oracles .venv-scalesim .venv-zigzag demo build dist *.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo 'no Python 3.11 or newer with its venv module found; try: make PYTHON=/path/to/python3' >&2; exit 1; }
	$(PYTHON) -m venv .venv

# Three stamps, so that the demo need not wait for the tools of the tests. Made again when pyproject.toml changes.
.venv/.installed: pyproject.toml | .venv/bin/python
	$(PIP_INSTALL) --editable .
	@touch $@

.venv/.installed-fpga: pyproject.toml | .venv/bin/python
	$(PIP_INSTALL) --editable '.[fpga]'
	@command -v iverilog >/dev/null || command -v c++ >/dev/null || command -v g++ >/dev/null || $(PIP_INSTALL) ziglang
	@touch .venv/.installed $@

.venv/.installed-dev: pyproject.toml | .venv/bin/python
	$(PIP_INSTALL) --editable '.[dev]'
	@command -v c++ >/dev/null || command -v g++ >/dev/null || $(PIP_INSTALL) ziglang # compiles the co-simulation
	@touch .venv/.installed .venv/.installed-fpga $@

# Made from nothing again when the pinned versions change. Nothing is resolved: the list is complete, and several of
# its packages ask for other versions of torch or transformers than run here. torch comes without CUDA: PyPI's build
# for Linux does not load without gigabytes of nvidia packages. Where no configured index has the CPU build, PyTorch's
# own is asked. deepspeed is a source package; built beside the others it needs no compiler.
.venv-oracles/.installed: tests/oracles/requirements.txt
	@test -n "$(PYTHON)" || { echo 'no Python 3.11 or newer with its venv module found; try: make PYTHON=/path/to/python3' >&2; exit 1; }
	rm -rf .venv-oracles
	$(PYTHON) -m venv .venv-oracles
	$(ORACLES_INSTALL) '$(TORCH)+cpu' || $(ORACLES_INSTALL) --index-url $(TORCH_INDEX) '$(TORCH)'
	$(ORACLES_INSTALL) --requirement tests/oracles/requirements.txt
	DS_BUILD_OPS=0 $(ORACLES_INSTALL) --no-build-isolation deepspeed==0.12.6
	@touch $@
