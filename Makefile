# Two commands for a fresh machine: "make demo" shows bsmtpd at work, "make test"
# checks it. CONTRIBUTING.md tells the rest.

GO ?= go

.PHONY: build demo test lint fuzz bench sim clean

build:
	$(GO) build -trimpath -o bin/bsmtpd ./cmd/bsmtpd

demo: build
	bin/bsmtpd demo

test:
	scripts/test.sh

# lint is the part of test that needs no running: format, vet, staticcheck.
lint:
	scripts/lint.sh

# fuzz runs every fuzz target; FUZZ_SECONDS=60 make fuzz for longer.
fuzz:
	scripts/fuzz.sh

# bench measures bsmtpd and Postfix side by side, on a quiet machine, as root:
# doc/benchmarks.md. BENCH='-only accept4k -profile' make bench for a part.
bench:
	$(GO) run ./bench $(BENCH)

# sim lets many simulated worlds live; SEEDS=2000 DAYS=3 make sim for more.
sim:
	SEEDS=$(or $(SEEDS),200) FROM=$(or $(FROM),1) DAYS=$(or $(DAYS),1) scripts/sim.sh

clean:
	rm -rf bin .cache
