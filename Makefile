# Every target makes its own set-up; run again it takes seconds.
PYTHON ?= python3
BASE ?= test_vit2
OUTPUT ?= runs/digits$(if $(filter-out test_vit2,$(BASE)),-$(BASE))
# The recipe's own optimiser (Muon) takes minutes an update on a CPU where matrices are large.
SET ?= $(if $(filter-out test_vit2,$(BASE)),--set opt=adamw --set lr=0.002)
BIN := .venv/bin

OLDEST_TIMM = $(shell sed -n 's/^ *timm>=//p' setup.cfg)

# A process for each core, each with one thread.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadgroup --durations=25

.PHONY: demo test test-slow test-oldest benchmark docs lint format dist clean

demo: .venv/installed
	$(BIN)/cp-search $(BASE) --budget 0.7x --trials 30 --pool-kwargs support_range=0.25 $(SET) --output $(OUTPUT)

test: .venv/installed
	$(TEST) -m "not slow"

test-slow: .venv/installed
	$(TEST) -m slow

# The tests of models, on the oldest timm that setup.cfg admits; make test has the newest.
test-oldest: .venv/installed
	@if [ "$$($(BIN)/python -c 'import timm; print(timm.__version__)')" = "$(OLDEST_TIMM)" ]; then \
	    echo "timm $(OLDEST_TIMM) is the oldest admitted and the newest there is: make test runs on it"; \
	else \
	    $(BIN)/python -m pip install --quiet --no-deps --upgrade --target build/oldest "timm==$(OLDEST_TIMM)" && \
	    PYTHONPATH=build/oldest $(TEST) -m "not slow" \
	        tests/cp_vision/models/test_models.py tests/cp_vision/models/test_as_timm_models.py tests/cp_vision/models/test_deployment.py tests/cp_vision/surgery; \
	fi

benchmark: .venv/installed
	$(BIN)/python benchmarks/operator.py

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

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
