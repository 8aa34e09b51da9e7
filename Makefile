# The two commands that a newcomer needs are `make run` and `make test`. All work is in `xtask`.
#
# Builds go to the cache, so that they outlive the clone. Each path has its own: cargo takes two
# clones for the same packages, and would mix their builds.
CACHE := $(or $(HEARTH_CACHE),$(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME)/hearth,$(HOME)/.cache/hearth))
export CARGO_TARGET_DIR ?= $(CACHE)/target/$(shell printf %s '$(CURDIR)' | cksum | cut -d' ' -f1)
# A whole build takes a quarter less without what would make the next small one faster.
export CARGO_INCREMENTAL ?= 0

# cargo builds the build tool without a word; the first time that takes a while.
SAY_FIRST = @[ -x "$$CARGO_TARGET_DIR/debug/xtask" ] || \
	echo "make $@: building the build tool (once, about half a minute)"

.PHONY: help sim run down check test soak lab-shell
help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

sim: ## Serve the example over the simulated host: no KVM, no microVMs, the same API
	$(SAY_FIRST)
	@cargo xtask sim

run: ## Serve config/desired_vms.exs on 127.0.0.1:8088; Ctrl-C leaves the microVMs running
	$(SAY_FIRST)
	@cargo xtask run

down: ## End the daemon, its microVMs and what it keeps about them
	$(SAY_FIRST)
	@cargo xtask down

check: export CARGO_INCREMENTAL = 1
check: ## Run what finds most mistakes, in minutes: fmt, words, clippy, plain tests, 2,000 schedules
	$(SAY_FIRST)
	@cargo xtask ci fmt words clippy tests

test: ## Run every check and every test, those with real guests included
	$(SAY_FIRST)
	@cargo xtask ci

soak: ## Run what takes longer than a commit for an hour, and enter the results in docs/ledger.tsv
	$(SAY_FIRST)
	@cargo xtask soak schedules --minutes 10
	@cargo xtask soak kills --minutes 5
	@cargo xtask soak fuzz --minutes 6
	@cargo xtask soak planted
	@cargo xtask soak mutants
	@cargo xtask soak api-fuzz --minutes 5

lab-shell: ## Open a shell where KVM boots Linux
	$(SAY_FIRST)
	@cargo xtask lab shell
