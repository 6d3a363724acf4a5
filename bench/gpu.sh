#!/usr/bin/env bash
# Every stage that has a GPU path, against its floor and its CPU twin; writes a record. For a bare GPU node: no network,
# only numpy and torch sure to be there, under 8 minutes. Run from anywhere: bench/gpu.sh [FOLDER]
set -euo pipefail
clone="$(cd "$(dirname "$0")/.." && pwd)"
PYTHONPATH="$clone/src${PYTHONPATH:+:$PYTHONPATH}" \
  exec timeout 480 "${PYTHON:-python3}" -m cityweave.bench.gpu --output "${1:-results/bench/gpu}"
