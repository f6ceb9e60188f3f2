# SPDX-License-Identifier: Apache-2.0
#
# Everything a person or a machine does with this repository.  `make` lists it.

PREFIX       ?= /usr/local
LIBDIR       ?= lib
DESTDIR      ?=
PYTHON       ?= python3
MEST_THREADS ?= own
BUILD        ?= .build
FUZZ_SECONDS ?= 600
export PYTHON MEST_THREADS BUILD

# What runs the kernels: threads of the library's own, OpenMP's, or none.  PRIVATE: what a static program links.
SCRATCH_own     := $(BUILD)
TRAITS_own      :=
PRIVATE_own     := pthread
SCRATCH_openmp  := $(BUILD)/openmp
TRAITS_openmp   := --traits OpenMP
PRIVATE_openmp  := omp5
SCRATCH_none    := $(BUILD)/serial
TRAITS_none     := --disable-default-traits
PRIVATE_none    :=
ifeq ($(origin SCRATCH_$(MEST_THREADS)),undefined)
  $(error MEST_THREADS is $(MEST_THREADS); use own, openmp or none)
endif
SCRATCH  := $(SCRATCH_$(MEST_THREADS))
TRAITS   := $(TRAITS_$(MEST_THREADS))
PRIVATE  := $(PRIVATE_$(MEST_THREADS))

# Only mest.h knows the version.
part    = $(shell sed -n 's/^\#define MEST_VERSION_$(1) *\([0-9]*\).*/\1/p' include/mest.h)
MAJOR   := $(call part,MAJOR)
MINOR   := $(call part,MINOR)
VERSION := $(MAJOR).$(MINOR).$(call part,PATCH)

OUT     := $(SCRATCH)/release
LIBRARY := $(abspath $(OUT)/libmest.so)
TO      := $(DESTDIR)$(PREFIX)

# The Python package runs from the checkout against the library just built.
BESIDE     := MEST_LIBRARY=$(LIBRARY) PYTHONPATH=$(CURDIR)/bindings/python
RUN_PYTHON := $(BESIDE) .venv/bin/python

# Any Python with numpy; where it has torch, onnx and onnxruntime, they are measured too, SparseProp where
# BENCH_SPARSEPROP is its folder, torch.compile with BENCH_COMPILE=on (benchmarks/README.md).
BENCH_PYTHON     ?= .venv/bin/python
BENCH_SPARSEPROP ?=
BENCH_COMPILE    ?= off
RUN_BENCH        := $(BESIDE) $(BENCH_PYTHON)
SPARSEPROP       := $(if $(BENCH_SPARSEPROP),--sparseprop '$(BENCH_SPARSEPROP)')
COMPILE          := $(if $(filter on,$(BENCH_COMPILE)),--compile)

# The last collects what the others have found about goals.
BENCHMARKS       := step batches schemes floor alone layers products memory inference mutation freezing imports bits threads experiments \
                    goals
bench_step       := step.py
bench_batches    := step.py --name batches --networks mlp resnet20 resnet32 vgg dscnn --batch 1 8 64 --threads 1 2 \
                    --sparsity 0 90 --rounds 5
bench_schemes    := step.py --name schemes --networks resnet20 --sparsity 0 90 95 --activations float32 bfloat16 \
                    --schemes unstructured block4 block8 block16 pattern nm24 fan_in filter channel \
                    row4 row8 row16
bench_floor      := step.py --name floor --no-torch --networks resnet32 --batch 64 --threads 1 2 --sparsity 90 98 99.9 \
                    --schemes block4 --activations float32 bfloat16 --rounds 5
bench_alone      := dense_against_sparse.py
bench_layers     := layers.py $(SPARSEPROP)
bench_products   := products.py $(SPARSEPROP)
bench_memory     := memory.py
bench_inference  := inference.py
bench_mutation   := mutation.py
bench_freezing   := freezing.py
bench_imports    := imports.py
bench_bits       := bits.py
bench_threads    := threads.py
bench_experiments := experiments/report.py --scale digits --train
bench_goals      := step.py --goals $(SPARSEPROP) $(COMPILE)

.PHONY: help setup build firmware wheel demo test test-all fuzz bench reference install uninstall deb clean

help:
	@echo 'libmest $(VERSION): sparse training on edge devices'
	@echo
	@echo '  make build      libmest.so and libmest.a in $(OUT)'
	@echo '  make firmware   libmest.a for microcontrollers in $(BUILD)/firmware; TARGETS=cortex-m4f for one (docs/firmware.md)'
	@echo '  make wheel      the Python package with the library in dist; TARGET=aarch64-linux for that machine'
	@echo '  make demo       train a sparse network on this machine, from a private Python environment'
	@echo '  make test       everything that CI checks'
	@echo '  make test-all   the same with torch, onnx, onnxruntime and safetensors, which it installs in .venv'
	@echo '  make fuzz       looks for inputs that break it; FUZZ_SECONDS=600 for each of three targets'
	@echo '  make bench      the benchmarks, results and the table of the README; BENCH_PYTHON with torch compares'
	@echo '  make reference  web pages of the C API (Doxygen) and of the Python package (pdoc) in $(BUILD)/reference'
	@echo '  make install    to PREFIX=$(PREFIX), below DESTDIR=$(DESTDIR)'
	@echo '  make uninstall  what make install put there'
	@echo '  make deb        Debian packages of it in $(BUILD)/deb'
	@echo '  make clean      remove what was built'
	@echo
	@echo '  MEST_THREADS=none builds without threads, MEST_THREADS=openmp with those of OpenMP.'

setup:
	@tools/setup.sh build

build: setup
	@test $(OUT)/libmest.so -nt packaging/mest.map || rm -f $(OUT)/libmest.so
	@rm -f $(OUT)/libmest-static.a # the package manager adds to an archive: objects of renamed files would stay
	@MEST_SONAME=libmest.so.$(MAJOR) swift build --quiet -c release --scratch-path $(SCRATCH) $(TRAITS)
	@ln -sf libmest.so $(OUT)/libmest.so.$(MAJOR)
	@tools/make-archive.sh $(OUT)/libmest-static.a $(OUT)/libmest.a

# All targets, or these.
TARGETS ?=
firmware: setup
	@tools/firmware.sh $(TARGETS)

# The Python package with the library: for this machine, or with TARGET=aarch64-linux for that one.
TARGET ?=
DIST   ?= $(CURDIR)/dist
wheel: TARGETS := $(TARGET)
wheel: $(if $(TARGET),firmware,build)
	@tools/setup.sh demo
	@DIST='$(DIST)' tools/wheel.sh $(if $(TARGET),$(BUILD)/firmware/$(TARGET),$(OUT))/libmest.so

demo: build
	@tools/setup.sh demo
	@$(RUN_PYTHON) examples/python/demo.py

test:
	@tools/setup.sh test
	@tools/run-tests.sh

# With torch, onnx and onnxruntime, whose tests are skipped otherwise: some hundred megabytes.
test-all:
	@tools/setup.sh test-all
	@tools/run-tests.sh

fuzz:
	@tools/setup.sh test
	@tools/fuzz.sh $(FUZZ_SECONDS)

bench: build
	@tools/setup.sh demo
	@$(foreach part,$(BENCHMARKS),date '+%T $(part)' && $(RUN_BENCH) benchmarks/$(bench_$(part)) --save &&) date +%T
	@$(RUN_BENCH) benchmarks/readme.py

reference: build
	@tools/setup.sh demo
	@$(BESIDE) tools/make-reference.sh

# LIBDIR, below PREFIX, is lib64 or lib/x86_64-linux-gnu where a system says so.  What pkg-config and CMake read says
# where things are from where it lies itself, so that an installed tree can be moved: UP leads from there to PREFIX.
# In /usr, which compilers search anyhow, pkg-config gets the plain name and need not tell them.
LIBS  := $(TO)/$(LIBDIR)
blank :=
UP    := $(subst $(blank) ,/,$(foreach folder,$(subst /, ,$(LIBDIR)) pkgconfig,..))

# Writes a packaging template with its names filled in.
HERE = $(if $(filter /usr,$(PREFIX)),/usr,$${pcfiledir}/$(UP))
fill = sed -e 's|@VERSION@|$(VERSION)|g' -e 's|@MAJOR@|$(MAJOR)|g' -e 's|@MINOR@|$(MINOR)|g' -e 's|@PREFIX@|$(HERE)|g' \
       -e 's|@UP@|$(UP)|g' -e 's|@LIBDIR@|$(LIBDIR)|g' -e 's|@POINTER_BYTES@|8|g' -e 's|@LIBS_PRIVATE@|$(2)|g' \
       packaging/$(1).in

install: build
	@install -d '$(TO)/include' '$(LIBS)/pkgconfig' '$(LIBS)/cmake/mest'
	@install -m 644 include/mest.h include/mest.hpp '$(TO)/include'
	@install -m 755 $(OUT)/libmest.so '$(LIBS)/libmest.so.$(VERSION)'
	@strip --strip-unneeded '$(LIBS)/libmest.so.$(VERSION)'
	@ln -sf libmest.so.$(VERSION) '$(LIBS)/libmest.so.$(MAJOR)'
	@ln -sf libmest.so.$(MAJOR) '$(LIBS)/libmest.so'
	@install -m 644 $(OUT)/libmest.a '$(LIBS)/libmest.a'
	@$(call fill,mest.pc,$(PRIVATE:%=-l%)) > '$(LIBS)/pkgconfig/mest.pc'
	@$(call fill,mestConfig.cmake,$(PRIVATE)) > '$(LIBS)/cmake/mest/mestConfig.cmake'
	@$(call fill,mestConfigVersion.cmake,) > '$(LIBS)/cmake/mest/mestConfigVersion.cmake'
	@chmod 644 '$(LIBS)'/pkgconfig/mest.pc '$(LIBS)'/cmake/mest/*.cmake
	@echo 'libmest $(VERSION) installed in $(TO)'

uninstall:
	@rm -f '$(TO)/include/mest.h' '$(TO)/include/mest.hpp' '$(LIBS)/libmest.so' '$(LIBS)/libmest.so.$(MAJOR)' \
	    '$(LIBS)/libmest.so.$(VERSION)' '$(LIBS)/libmest.a' '$(LIBS)/pkgconfig/mest.pc' \
	    '$(LIBS)/cmake/mest/mestConfig.cmake' '$(LIBS)/cmake/mest/mestConfigVersion.cmake'
	@rmdir '$(LIBS)/cmake/mest' '$(LIBS)/cmake' '$(LIBS)/pkgconfig' 2>/dev/null || true
	@echo 'libmest removed from $(TO)'

deb: build
	@tools/make-deb.sh

clean:
	@rm -rf .build out dist
