# Everything goes through .venv, which the first target that needs it makes.
PYTHON ?= python3
BIN := .venv/bin
OLDEST := .venv-oldest/bin
OLDEST_PYTHON ?= $(shell python3.10 -c '' 2>/dev/null && echo python3.10 || echo $(PYTHON))# 3.10 where there is one
DATA ?= data# folder of the torchvision data sets, for the studies

.PHONY: run test test-all test-elsewhere test-oldest bench paper-small study family family-mnist family-cifar less-work teachers defenses escape audit-study gpu studies sync lint clean help

help:  ## this list
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / { print "  make " $$1 "\t" $$2 }' $(MAKEFILE_LIST)

run: .venv/installed  ## the quickstart: a backdoored teacher, distilled four ways (about 5 minutes on 2 CPU cores)
	$(BIN)/dfkd -m experiment=quickstart

# The tests start a hundred processes; without .pyc files each of them would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := -m pytest -n auto --maxprocesses 8 --dist worksteal
test: .venv/installed  ## all fast tests (CPU, no network)
	$(BIN)/python $(PYTEST)

EVERY := -m "exhaustive or not exhaustive"
test-all: .venv/installed  ## the same, and of many tests that are alike every one
	$(BIN)/python $(PYTEST) $(EVERY)

test-elsewhere: .venv/installed  ## all fast tests, on a stand-in for a GPU: do tests or package mix two devices?
	$(BIN)/python $(PYTEST) --device elsewhere

test-oldest: .venv-oldest/installed  ## every one on the oldest Python and packages that are promised, in .venv-oldest
	$(OLDEST)/python $(PYTEST) $(EVERY)

SMALL := debug=small hydra/launcher=parallel outputs=outputs/paper-small
paper-small: .venv/installed  ## one table of either paper in the size of a CPU: CAKE's components, ATEsc on a backdoor (15 minutes on 2 cores)
	$(BIN)/dfkd -m ablation=cake/components $(SMALL) seed=0,1,2
	$(BIN)/dfkd -m ablation=atesc/backdoor $(SMALL) seed=0,1,2
	@echo; echo 'the reports:'; ls -t outputs/paper-small/reports/*/report.html

bench: .venv/installed  ## speed and memory beside bare loops, for docs/benchmarks.md (under 10 minutes on 2 CPU cores, alone; BENCH="--device cuda" on a GPU)
	$(BIN)/python scripts/bench.py $(BENCH)

study: .venv/installed  ## the tables of docs/results.md again, on DATA=folder with MNIST and mnistm.npz (hours on 2 CPU cores, minutes on a GPU)
	$(BIN)/dfkd -m experiment=quickstart seed=0,1,2
	$(BIN)/dfkd -m $(BF16) experiment=cake/two_moons seed=0,1,2
	$(BIN)/dfkd -m $(BF16) experiment=cake/digits synthesizer.rounds=40 seed=0,1,2
	$(BIN)/dfkd -m $(BF16) experiment=dfq/digits synthesizer.rounds=450 seed=0,1,2
	$(BIN)/dfkd -m $(BF16) synthesizer=noise_images,real seed=0,1,2
	$(BIN)/dfkd -m $(BF16) experiment=cake/mnist data.root=$(DATA) seed=0,1,2
	$(BIN)/dfkd -m experiment=atesc/mnist_backdoor data.root=$(DATA) runtime.threads=1 hydra/launcher=parallel seed=0,1,2
	$(BIN)/dfkd -m experiment=atesc/mnist_mnistm data.root=$(DATA) runtime.threads=1 hydra/launcher=parallel seed=0

METHODS := real noise_images dafl zskt dfad dfq mad deepinversion adaptive_deepinversion cmi fast nayer cake cake_generator
family: .venv/installed  ## every synthesizer on the built-in digits, 3 seeds, equal budgets (half an hour on 2 CPU cores)
	$(BIN)/dfkd -m hydra/launcher=parallel runtime.threads=1 runtime.precision=float32 seed=0,1,2 \
	  experiment=$(shell echo $(METHODS:%=%/digits) | tr ' ' ',')

sync: .venv/installed  ## upload the offline W&B runs under outputs/
	$(BIN)/python scripts/sync_wandb.py

BESIDE := hydra/launcher=parallel runtime.threads=1# cells beside each other, one thread each
BF16 := runtime.precision=bfloat16# as in docs/results.md, whatever is faster elsewhere
MNIST := $(patsubst cake/mnist,cake/mnist_family,$(METHODS:%=%/mnist))
OFTEN := dfq/mnist cmi/mnist fast/mnist nayer/mnist cake/mnist_family
family-mnist: .venv/installed  ## every synthesizer on MNIST, equal budgets, with DATA=folder; five of them with 3 seeds (hours on 2 CPU cores)
	$(BIN)/dfkd -m $(BESIDE) $(BF16) data.root=$(DATA) experiment=$(shell echo $(MNIST) | tr ' ' ',')
	$(BIN)/dfkd -m $(BESIDE) $(BF16) data.root=$(DATA) experiment=$(shell echo $(OFTEN) | tr ' ' ',') seed=0,1,2

OF_A_CPU := fast nayer dfq cake noise_images real
family-cifar: .venv/installed  ## CIFAR-10 in the size of a CPU, WRN-16-2 to WRN-16-1, six synthesizers, with DATA=folder (a night on 2 CPU cores)
	$(BIN)/dfkd -m $(BESIDE) data.root=$(DATA) experiment=$(shell echo $(OF_A_CPU:%=%/cifar10_cpu) | tr ' ' ',')

less-work: .venv/installed  ## few evaluations of the teacher, 3 seeds: CAKE on MNIST with DATA=folder, ATEsc on the quickstart (two hours on 2 CPU cores)
	$(BIN)/dfkd -m $(BESIDE) $(BF16) data.root=$(DATA) seed=0,1,2 experiment=cake/mnist_fast synthesizer.rounds=8,24
	$(BIN)/dfkd -m $(BESIDE) $(BF16) data.root=$(DATA) seed=0,1,2 experiment=cake/mnist student.augment=none
	$(BIN)/dfkd -m $(BESIDE) $(BF16) data.root=$(DATA) seed=0,1,2 experiment=cake/mnist student.augment=none \
	  synthesizer.rounds=24 student.epochs=80
	$(BIN)/dfkd -m $(BESIDE) $(BF16) data.root=$(DATA) seed=0,1,2 experiment=cake/mnist student.augment=none \
	  synthesizer.steps=256 synthesizer.rounds=8 student.epochs=250
	$(BIN)/dfkd -m experiment=quickstart defense=none,atesc,atesc_fast seed=0,1,2

teachers: .venv/installed  ## the teachers of every trap, judged without a student: digits, every trigger; MNIST with DATA=folder
	$(BIN)/dfkd -m $(BESIDE) $(BF16) experiment=teachers/digits seed=0,1,2
	$(BIN)/dfkd -m $(BESIDE) $(BF16) experiment=teachers/backdoor seed=0,1,2
	$(BIN)/dfkd -m $(BESIDE) $(BF16) experiment=teachers/mnist_usps seed=0,1,2 data.root=$(DATA)
	$(BIN)/dfkd -m $(BESIDE) $(BF16) experiment=teachers/mnist_mnistm seed=0,1,2 data.root=$(DATA)

defenses: .venv/installed  ## every defense in every scenario on the built-in digits, 3 seeds (an hour on 2 CPU cores)
	$(BIN)/dfkd -m experiment=matrix/close_set seed=0,1,2
	$(BIN)/dfkd -m experiment=matrix/open_set seed=0,1,2
	$(BIN)/dfkd -m experiment=matrix/backdoor seed=0,1,2

audit-study: .venv/installed  ## the tables of docs/audit.md: 592 teachers, audited; with MNIST and USPS in DATA=folder (four hours on a CPU core of its own)
	$(BIN)/python scripts/audit/zoo.py --out outputs/audit --data $(DATA)
	$(BIN)/python scripts/audit/outside.py --out outputs/audit --data $(DATA)
	$(BIN)/python scripts/audit/baselines.py --out outputs/audit
	$(BIN)/python scripts/audit/students.py --out outputs/audit --data $(DATA)
	$(BIN)/python scripts/audit/study.py --out outputs/audit --fit
	$(BIN)/python scripts/audit/study.py --out outputs/audit

escape: study-escape  ## docs/escape.md: the defenses beside each other in three scenarios, ten seeds (ten hours on a CPU core)

gpu: .venv/installed  ## is this machine with a GPU set up well? docs/gpu.md on CIFAR-10 in DATA=folder (5 + 9 minutes; goes on where it was stopped)
	$(BIN)/python scripts/make_gpu.py --data $(DATA) $(GPU)

STUDIES := boundary queries parts transformers robustness weights trap_images halves criteria leakage generators continual text escape
studies: $(STUDIES:%=study-%) study-flip_radius  ## every study of docs/studies, which make study-NAME does one by one (about 23 hours on a CPU core)
# A cell that fails is told on the page, which is written nevertheless.
study-flip_radius: CELLS := trap_images
CHAINS := scripts/continual.py --rounds 1/3 --seeds 0,1,2,3,4 --out outputs/studies/continual runtime.threads=1 runtime.precision=float32
study-continual: .venv/installed
	-$(BIN)/python $(CHAINS)
	-$(BIN)/python $(CHAINS) --methods cake synthesizer.contrast_weight=1
	-$(BIN)/python $(CHAINS) --methods cake synthesizer.contrast_weight=0
	$(BIN)/python scripts/write_study.py continual
study-%: .venv/installed
	-$(BIN)/dfkd -m ablation=study/$(or $(CELLS),$*) outputs=outputs/studies/$(or $(CELLS),$*)
	$(BIN)/python scripts/write_study.py $*

lint: .venv/installed  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:  ## remove .venv and what tools left; outputs/ stays
	rm -rf .venv .venv-oldest build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "dfkd needs Python 3.10 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

.venv-oldest/installed: pyproject.toml tests/constraints-oldest.txt
	$(OLDEST_PYTHON) -m venv .venv-oldest
	$(OLDEST)/pip install --quiet --upgrade pip
	$(OLDEST)/pip install --quiet --constraint tests/constraints-oldest.txt --editable '.[dev]'
	@touch $@
