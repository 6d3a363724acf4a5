#!/usr/bin/env bash
# The restorer that is shipped, from nothing: cities, pictures and two sittings of training, an hour and a half on 2
# cores. Weights end up in training/restorer_2/. Runs in the repository's root, with make setup EXTRAS=metrics.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
config=config/train/restorer.yaml

sitting() { # number, further settings
  cityweave train restorer --config "$config" --set "name=restorer_$1" "${@:2}"
}

python bench/restorer_cities.py
cityweave train data --task restorer --config "$config"
sitting 1 --set loop.learning_rate=1e-3 --set loss.charbonnier=0.01 --set loss.looks=0.3 --set loss.looked_at=3
sitting 2 --set "model.start=$(echo training/restorer_1/run-00-*/weights.safetensors)"
