#!/bin/sh
# Checks and measures everything on a CUDA device, in under 8 minutes; see scripts/bench_gpu.py.
# PYTHON names the interpreter.
set -eu
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" scripts/bench_gpu.py "$@"
