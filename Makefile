# make demo   shows the whole path on rendered videos        make test       runs all tests
# make bench  prints the numbers of the README               make test-fast  leaves out slow tests and those of the nodes
# make lint   checks style and types                         make setup      only prepares (every target does that first)
# make docs   builds the documentation into out/site (no network; stops at a broken link)
# make clean  removes what was built (not the virtual environment)

SHELL := /bin/bash
PYTHON ?= $(or $(firstword $(foreach p,python3 python3.12 python3.11,$(shell $(p) -c 'import sys; sys.version_info[:2] in ((3, 11), (3, 12)) and print("$(p)")' 2>/dev/null))),python3)
PYTEST_ARGS ?=

STAMPS := .venv/.stamps
BUILT_FROM := CMakeLists.txt package.xml $(shell find cmake action config launch msg srv scripts semalign3d_core semalign3d_ros \
  -type f -not -name '*.pyc' -not -name '.*')

# A sourced ROS installation or another environment with ROS wheels must not leak into this one.
ifneq ($(ROS_DISTRO)$(_ROS_WHEELS_BOOTSTRAP_COMPLETE)$(AMENT_PREFIX_PATH),)
unexport ROS_DISTRO _ROS_WHEELS_BOOTSTRAP_COMPLETE AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH PYTHONPATH LD_LIBRARY_PATH
endif

.PHONY: setup demo test test-fast bench lint docs clean
.DELETE_ON_ERROR:

setup: $(STAMPS)/built

$(STAMPS)/venv: scripts/check_system.sh
	@scripts/check_system.sh $(PYTHON)
	$(PYTHON) -m venv .venv
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/installed: $(STAMPS)/venv requirements/torch.txt requirements/ros.txt requirements/constraints.txt pyproject.toml setup.py
	.venv/bin/python -m pip install --quiet -c requirements/constraints.txt -r requirements/torch.txt
	.venv/bin/python -m pip install --quiet -c requirements/constraints.txt -r requirements/ros.txt -e '.[all]'
	@touch $@

$(STAMPS)/built: $(STAMPS)/installed $(BUILT_FROM)
	@scripts/check_system.sh .venv/bin/python
	. .venv/bin/activate && AMENT_PREFIX_PATH=$$VIRTUAL_ENV colcon build --event-handlers console_cohesion-
	@touch $@

demo: setup
	. scripts/env.sh && python bench/demo.py

test: setup
	. scripts/env.sh && python -m pytest $(PYTEST_ARGS)

test-fast: setup
	. scripts/env.sh && python -m pytest -n auto --dist loadfile -m "not slow and not ros" $(PYTEST_ARGS)

# Scripts that print the numbers of README and docs and need nothing but this machine; others say in their docstring what they need.
BENCH := embedded alignment build_quality build_speed transfer synth throughput providers node_rate node_memory demo

bench: setup
	. scripts/env.sh && failed= && for script in $(BENCH); do echo "== bench/$$script.py"; python bench/$$script.py || failed="$$failed $$script"; done; \
	  [ -z "$$failed" ] || { echo "stopped with an error:$$failed" >&2; exit 1; }

lint: $(STAMPS)/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

docs: $(STAMPS)/installed
	PYTHONPATH=. .venv/bin/mkdocs build --strict --quiet
	@echo "documentation: out/site/index.html"

clean:
	rm -rf build install log out *.egg-info $(STAMPS)/built
