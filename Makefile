PYTHON ?= python3
VENV := .venv
CLIENTS := .venv-clients
CHARLM := $(VENV)/bin/charlm
CORPUS ?= data/pydocs.txt

# pip says nothing while it downloads and unpacks: the growing environment shows that it is at work.
define installed
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check $(1) & pip=$$!; seconds=0; \
	trap 'kill $$pip 2>/dev/null' EXIT; \
	while sleep 1 && kill -0 $$pip 2>/dev/null; do \
		seconds=$$((seconds + 1)); \
		[ $$((seconds % 10)) -gt 0 ] || echo "  $$seconds s: $$(du -sh $(@D) | cut -f1) in $(@D)"; \
	done; wait $$pip
	@touch $@
endef

.PHONY: demo test resume-proof proofs parity load clients bench forecasts gpu pairs scale trust picture small-model clean

demo: $(VENV)/.installed $(CORPUS)  ## environment, corpus, a short training, a generated text
	@echo "Training for two minutes on $(CORPUS); then the model writes."
	$(CHARLM) train $(CORPUS) --minutes 2
	$(CHARLM) generate --prompt "The " --length 400 --seed 1

test: $(VENV)/.installed-dev  ## lint, types, tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest

resume-proof: $(VENV)/.installed $(CORPUS)  ## 200 steps against 100, a kill and --resume, for LSTM and GRU
	$(VENV)/bin/python benchmarks/resume_proof.py $(CORPUS)

proofs: $(VENV)/.installed-dev $(VENV)/.installed-bench  ## docs/proofs.md: this, and the errors of the gradient
	$(VENV)/bin/python benchmarks/proofs.py

parity: $(VENV)/.installed-parity $(CORPUS)  ## docs/export.md: every export against its model; MINUTES=10: a large one's
	$(VENV)/bin/python benchmarks/parity.py $(CORPUS) $(MINUTES)

load: $(VENV)/.installed-dev $(CORPUS)  ## docs/serving.md: 200 clients of one server
	$(VENV)/bin/python benchmarks/load.py $(CORPUS)

clients: $(VENV)/.installed-dev $(CLIENTS)/.installed  ## docs/clients.md: other people's clients; wants curl, nginx, Chromium
	$(VENV)/bin/python benchmarks/clients.py

bench: $(VENV)/.installed-bench $(CORPUS)  ## docs/performance.md: make bench CORPUS=file [PARTS='training startup']
	$(VENV)/bin/python benchmarks/bench.py $(CORPUS) $(PARTS)

gpu: $(VENV)/.installed-gpu $(CORPUS)  ## docs/gpu.md: on a machine with an NVIDIA GPU
	$(VENV)/bin/python benchmarks/gpu.py $(CORPUS)

forecasts: $(VENV)/.installed-sequences  ## docs/forecasts.md: make forecasts M1=m1_yearly_dataset.tsf
	$(VENV)/bin/python benchmarks/forecasts.py $(M1)

pairs: $(VENV)/.installed-sequences  ## docs/translations.md: make pairs SIGMORPHON=folder [PARTS='addition2 addition3 dates words']
	$(VENV)/bin/python benchmarks/pairs.py $(SIGMORPHON) $(PARTS)

scale: $(VENV)/.installed  ## docs/scale.md: what an update costs on one machine and on many
	$(VENV)/bin/python benchmarks/scale.py

trust: $(VENV)/.installed-trust  ## docs/trust.md: what charlm survives; make trust [PARTS='kills disk']
	$(VENV)/bin/python benchmarks/trust $(PARTS)

picture: $(VENV)/.installed-dev  ## docs/page.png: the page of a model
	$(VENV)/bin/python benchmarks/picture.py kjv-small

small-model: data/kjv.txt  ## trains models/kjv-small anew
	rm -rf models/kjv-small
	$(VENV)/bin/python benchmarks/small_model.py data/kjv.txt 4000

data/pydocs.txt: | $(VENV)/.installed
	$(CHARLM) corpus pydocs $@

data/kjv.txt: | $(VENV)/.installed-kjv
	$(CHARLM) corpus kjv $@

$(VENV)/.installed: pyproject.toml
	@echo "Installing charlm and TensorFlow into $(VENV): 0.7 GB to download, 2.2 GB on the disk, two to five minutes."
	$(call installed,--editable '.')

$(VENV)/.installed-dev: $(VENV)/.installed
	$(call installed,--editable '.[dev]')

$(VENV)/.installed-kjv: $(VENV)/.installed
	$(call installed,--editable '.[kjv]')

$(VENV)/.installed-parity: $(VENV)/.installed-dev
	$(call installed,--editable '.[openvino]')

$(VENV)/.installed-sequences: $(VENV)/.installed-dev
	$(call installed,--editable '.[sequences]')

$(VENV)/.installed-trust: $(VENV)/.installed-dev
	$(call installed,--editable '.[trust]')

$(VENV)/.installed-bench: $(VENV)/.installed
	$(call installed,--editable '.[bench]')

$(VENV)/.installed-gpu: $(VENV)/.installed
	$(call installed,--editable '.[gpu,bench]')

$(CLIENTS)/.installed:
	@echo "Installing other people's clients into $(CLIENTS): 0.9 GB on the disk."
	$(call installed,openai llm langchain-openai 'lm_eval[api]')

clean:  ## the environment and caches; trained models stay
	rm -rf $(VENV) $(CLIENTS) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
