#!/usr/bin/env bash
# The network for heights from one picture that is shipped, and a plain U-Net of the same size on equal data and steps,
# from nothing: 448 synthetic cities, an autoencoder, two sittings of each. Some four and a half hours on a core that knows
# bf16. Weights end up in training/cityscale_2/ and training/heights_2/. Runs in the repository's root.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

weights() { echo training/"$1"/run-00-*/weights.safetensors; }

first=(--set data.window_px=256 --set data.validation_windows=96 --set loop.steps=1600 --set loop.batch=8
  --set loop.learning_rate=1.0e-3 --set loop.validate_every=400)

cityweave train data --task cityscale --config config/train/cityscale.yaml
cityweave train height_vae --config config/train/height_vae.yaml
vae=$(weights height_vae)
cityweave train cityscale --config config/train/cityscale.yaml --set name=cityscale_1 --set "model.vae=$vae" \
  --set loss.one_step=0.5 "${first[@]}"
cityweave train cityscale --config config/train/cityscale.yaml --set name=cityscale_2 --set "model.vae=$vae" \
  --set "model.start=$(weights cityscale_1)"

same=(--config config/train/cityscale_unet.yaml)
cityweave train heights "${same[@]}" --set name=heights_1 "${first[@]}"
cityweave train heights "${same[@]}" --set name=heights_2 --set "model.start=$(weights heights_1)"
