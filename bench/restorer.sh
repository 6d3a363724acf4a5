#!/usr/bin/env bash
# The restorer that is shipped, from nothing: cities, pictures and three sittings of training; two and a half hours on 2
# cores. Weights end up in training/restorer_3/. Runs in the repository's root, with make setup EXTRAS=metrics.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
config=config/train/restorer.yaml

runs() { # names of seeds $1 to $2, with $3 behind each, as a list
  seq --format "results/restorer/s%g${3:-}" --separator ', ' "$1" "$2"
}
sitting() { # number, runs to train on, further settings
  local number=$1 train=$2
  shift 2
  cityweave train data --task restorer --config "$config" --set "data.train=[$train]"
  cityweave train restorer --config "$config" --set "name=restorer_$number" --set "data.train=[$train]" "$@"
}
weights() { echo training/restorer_"$1"/run-00-*/weights.safetensors; }

python bench/restorer_cities.py
sitting 1 "$(runs 51 64)" --set loop.steps=6000 --set loop.learning_rate=1e-3 \
  --set loss.charbonnier=0.01 --set loss.looks=0.3 --set loss.looked_at=3
sitting 2 "$(runs 51 64)" --set loop.steps=6000 --set "model.start=$(weights 1)"
python bench/restorer_cities.py --refined-by "$(weights 2)"
sitting 3 "$(runs 51 64), $(runs 71 80), $(runs 51 58 r)" --set "model.start=$(weights 2)"
