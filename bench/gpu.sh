#!/usr/bin/env bash
# Everything that wants a GPU, in one call on a machine that has one with nvcc, Python and a PyTorch with CUDA: builds,
# tests, sanitizers, timings. `bench/gpu.sh [FOLDER]` leaves logs and gpu.json in FOLDER (build/gpu); whatever fails, the
# rest runs, and the last lines say what failed. STEPS="build test" runs some of it.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-build/gpu}
mkdir -p "$out"
failed=()
architecture=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)

step() {  # NAME COMMAND...
  local name=$1
  shift
  [[ " ${STEPS:-build test memcheck initcheck racecheck bench} " = *" $name "* ]] || return 0
  echo "==== $name"
  timeout "${LIMIT:-500}" "$@" >"$out/$name.log" 2>&1 || failed+=("$name")
  tail -n "${LINES_SHOWN:-12}" "$out/$name.log"
}

small() { compute-sanitizer --tool "$1" --error-exitcode 9 python -m pytest -q -x -p no:cacheprovider tests/test_cuda.py \
  -k "test_masks_and_lengths or test_poisoned or test_state or (test_rows and float32 and not 300000) or (test_images and float32 and 5-7)"; }

step build python -m pip install --quiet -C cmake.define.NORMKIT_CUDA=ON -C cmake.define.NORMKIT_ISAS=avx2 \
  -C "cmake.define.CMAKE_CUDA_ARCHITECTURES=$architecture-real" '.[test]'
step test python -m pytest -q -x tests/test_cuda.py
step memcheck small memcheck
step initcheck small initcheck
step racecheck small racecheck
step bench python bench/gpu.py --json "$out/gpu.json"
LINES_SHOWN=80
[[ ${#failed[@]} -eq 0 ]] || { echo "failed: ${failed[*]}"; exit 1; }
