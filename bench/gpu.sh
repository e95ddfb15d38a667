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

step() {  # NAME SECONDS COMMAND...
  local name=$1 limit=$2
  shift 2
  [[ " ${STEPS:-build test memcheck initcheck racecheck bench} " = *" $name "* ]] || return 0
  echo "==== $name"
  timeout "$limit" "$@" >"$out/$name.log" 2>&1 || failed+=("$name")
  tail -n "$([[ $name = bench ]] && echo 80 || echo 12)" "$out/$name.log"
}

# What a sanitizer slows down a hundred times.
few="test_masks_and_lengths or test_poisoned or test_state or (test_rows and float32 and not 2x300000)"
few+=" or (test_images and float32 and 2x8x5x7)"
under() { echo compute-sanitizer --tool "$1" --error-exitcode 9 python -m pytest -q -x tests/test_cuda.py -k; }

step build 500 python -m pip install --quiet -C cmake.define.NORMKIT_CUDA=ON -C cmake.define.NORMKIT_ISAS=avx2 \
  -C "cmake.define.CMAKE_CUDA_ARCHITECTURES=$architecture-real" '.[test]'
step test 500 python -m pytest -q tests/test_cuda.py
for tool in memcheck initcheck racecheck; do
  # shellcheck disable=SC2046  # words are meant
  step "$tool" 300 $(under "$tool") "$few"
done
step bench 500 python bench/gpu.py --json "$out/gpu.json"
[[ ${#failed[@]} -eq 0 ]] || { echo "failed: ${failed[*]}"; exit 1; }
