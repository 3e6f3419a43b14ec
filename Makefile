# `make` prints this list.
help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: ## show the main job on a private server (installs what is missing)
	@scripts/demo.sh

test: ## run everything CI runs
	@scripts/test.sh

install: ## build the release and install it into the server of PG_CONFIG
	@scripts/install.sh

bench: ## time encryption against its peers, and the failure drills
	@tests/bench/run.sh

endurance: ## mixed load with random faults for ENDURANCE_SECONDS (3600)
	@tests/endurance/run.sh

clean: ## remove what was built
	@scripts/clean.sh

.PHONY: help demo test install bench endurance clean
