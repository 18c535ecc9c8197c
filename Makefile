PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NETWORK ?=
MINUTES ?=

.PHONY: setup training demo cluster test test-slow lint networks holdout pretrained bests benchmarks clean

setup: $(VENV)/.complete

$(VENV)/.complete: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "crosstune needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# Training cost models takes torch, which is large where no small build is at hand; nothing else needs it. The tests
# that do are skipped without it, except where CI is set.
training: $(VENV)/.training

$(VENV)/.training: $(VENV)/.complete
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,training]'
	touch $@

demo: setup
	$(BIN)/python -m benchmarks.demo $(if $(NETWORK),--network '$(NETWORK)') $(if $(MINUTES),--minutes $(MINUTES))

# A service of several processes on this machine, as docker-compose.yml starts them: API, workers, Redis, PostgreSQL.
cluster: setup
	$(BIN)/python -m benchmarks.cluster

test: setup lint
	$(BIN)/python -m pytest

# What takes minutes each: services that are killed, clusters, lives of cost models. Needs `make training`.
test-slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Networks of the wild for the benchmarks, exported in an environment of its own: torch and TVM bring two LLVMs.
# pytorchcv names torchvision for one model that is not used here, and it does not fit every build of torch.
networks:
	$(PYTHON) -m venv .venv-exporters
	.venv-exporters/bin/python -m pip install --quiet torch==2.13.0 transformers onnx onnxscript requests
	.venv-exporters/bin/python -m pip install --quiet --no-deps pytorchcv
	.venv-exporters/bin/python benchmarks/export_networks.py benchmarks/.cache/networks

# The list of workloads that no cost model is trained on; needed again only when the graph pipeline changes.
holdout: setup networks
	.venv-exporters/bin/python benchmarks/export_networks.py --held-out benchmarks/.cache/held_out
	$(BIN)/python -m benchmarks.hold_out

# The data set and the model that come with the package, from what was collected and, if told, from other logs:
# LOGS="a/ b.json.gz". Shipped: with bennu's depthwise, pooling and matmul logs and its x86_conv2d. Its other logs hold
# layers of the held-out networks, which the keys of Ansor do not tell: leave such logs out by hand.
LOGS ?=
KEEP ?= 0.8
PRETRAINING := benchmarks/.cache/pretraining
SHIPPED := cost_model/pretrained/dataset
pretrained: training bests
	rm -rf $(PRETRAINING) $(SHIPPED)
	$(BIN)/crosstune dataset import --dataset $(PRETRAINING)/plain cost_model/pretrained/collected/*/ $(LOGS)
	$(BIN)/crosstune dataset describe --dataset $(PRETRAINING)/plain --out $(PRETRAINING)/described
	$(BIN)/crosstune dataset prune --dataset $(PRETRAINING)/described --out $(SHIPPED) --keep $(KEEP) \
	  --method stratified-distinct
	$(BIN)/crosstune model train --dataset $(SHIPPED) --out cost_model/pretrained/model

# The best latencies that come with the package, of the same collections: what it expects of what was never measured.
bests: setup
	$(BIN)/python -m crosstune.cost_model.bests cost_model/pretrained/collected/*/

benchmarks: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info
