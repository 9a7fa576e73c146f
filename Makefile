# make run        the platform on this machine        HTTP_PORT=8000 MQTT_PORT=1883 DEMO=20
# make test       the tests that need nothing installed
# make test-faults   real processes, killed and stopped in the middle of updates   ROUNDS=2
# make lint       style and types          make format     put the code in shape
# make messages   bring the translation catalogue up to date with the code

PYTHON ?= python3
DEMO ?= $(or $(OTA_DEMO),20)
PY := .venv/bin/python
SOURCES := otaplatform devices firmware campaigns

ifneq ($(HTTP_PORT),)
export OTA_HTTP_PORT := $(HTTP_PORT)
endif
ifneq ($(MQTT_PORT),)
export OTA_MQTT_PORT := $(MQTT_PORT)
endif
export OTA_DEMO := $(DEMO)

.PHONY: run test test-faults lint format messages venv dev
.DEFAULT_GOAL := run

run: venv
	@$(PY) manage.py up

venv:
	@$(PYTHON) deploy/venv.py requirements.txt

dev:
	@$(PYTHON) deploy/venv.py requirements-dev.txt

test: dev
	$(PY) -m pytest -q -n auto -m "not postgres and not browser and not realclient and not slow"

test-faults: dev
	$(PY) -m tests.faults --rounds $(or $(ROUNDS),2)

lint: dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy $(SOURCES)

format: dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

messages: dev
	$(PY) deploy/messages.py
