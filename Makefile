# `make` prints this list.
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: ## show the main job on a private server (installs what is missing)
	@scripts/demo.sh

check: ## format, lint, unit tests, documentation: what takes no PostgreSQL
	@scripts/check.sh

test: ## run everything CI runs; with PG=16 the session tests on that version (14 to 18)
	@PG='$(PG)' scripts/test.sh

test-clients: ## protected columns as Node, Java, Rust and PgBouncer see them
	@scripts/test_clients.sh

test-onboarding: ## what owners of keys are handed, read by Terraform, AWS's tools and a simulator of IAM
	@scripts/test_onboarding.sh

install: ## build the release and install it into the server of PG_CONFIG
	@scripts/install.sh

schema: ## regenerate the committed SQL script from sql/ and src/sql/
	@scripts/schema.sh

deny: ## licences, sources, duplicates and advisories of the dependencies
	@scripts/deny.sh

sbom: ## write a bill of materials of the library, CycloneDX, to target/sbom
	@scripts/sbom.sh

mutants: ## change the code and see whether a test notices
	@scripts/mutants.sh

miri: ## look for undefined behaviour (takes nightly Rust with miri)
	@scripts/miri.sh

bench: ## time encryption against its peers, and the failure drills
	@tests/bench/run.sh

bench-crates: ## time the crates without PostgreSQL
	@scripts/bench_crates.sh

endurance: ## mixed load with random faults for ENDURANCE_SECONDS (3600)
	@tests/endurance/run.sh

clean: ## remove what was built
	@scripts/clean.sh

.PHONY: help demo check test test-clients test-onboarding install schema deny sbom mutants miri bench bench-crates endurance clean
