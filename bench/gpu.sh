#!/usr/bin/env bash
# Everything that wants a GPU, in one call on a machine that has one with nvcc, Python and a PyTorch with CUDA: builds,
# tests, sanitizers, timings. `bench/gpu.sh [FOLDER]` leaves logs and gpu.json in FOLDER (build/gpu); whatever fails, the
# rest runs, and the last lines say what failed. STEPS="build test" runs some of it. An installed normkit is used where
# "build" is left out. LIMIT=540 ends it after so many seconds, whatever has not been done by then. Where no package index
# can be reached, what normkit is built with has to be there: scikit-build-core, nanobind, CMake, Ninja, NumPy, pytest.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-build/gpu}
mkdir -p "$out"
steps=" ${STEPS:-build test bench modules sanitize} "
failed=()
architecture=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)

step() {  # NAME SECONDS COMMAND...
  local name=$1 limit=$2 begin=$SECONDS
  shift 2
  local left=$((${LIMIT:-3600} - SECONDS))
  ((left > 0)) || { failed+=("$name: no time was left"); return; }
  ((limit <= left)) || limit=$left
  timeout "$limit" "$@" >"$out/$name.log" 2>&1 || failed+=("$name")
  echo "==== $name, $((SECONDS - begin)) s"
  tail -n "$([[ $name = bench ]] && echo 140 || echo 25)" "$out/$name.log"
}
runs() { [[ $steps = *" $1 "* ]]; }

# What a sanitizer slows down a hundred times; one of each kernel.
few="test_masks_and_lengths or test_poisoned or test_state or (test_rows and float32 and not 2x300000)"
few+=" or (test_rows and bfloat16 and (37x333 or 70x2051 or 9x20001))"
few+=" or (test_images and bfloat16 and relu and group_norm and 2x36x35x35)"
few+=" or (test_images and bfloat16 and silu and (2x8x5x7 or 3x6x7x7))"
few+=" or (test_images and bfloat16 and relu and (20x8x7x7 or 2x64x28x28 or 9x2x256x96))"
few+=" or (test_images and float32 and relu and batch_norm and 9x2x256x96)"
few+=" or (test_images and bfloat16 and relu and instance_norm and 16x32x56x56)"
sanitize() {  # all three at once
  local tool
  local -A running
  for tool in memcheck initcheck racecheck; do
    timeout 300 compute-sanitizer --tool "$tool" --error-exitcode 9 python -m pytest -q -x -p no:xdist \
      -p no:cacheprovider tests/test_cuda.py -k "$few" >"$out/$tool.log" 2>&1 &
    running[$tool]=$!
  done
  local result=0
  for tool in "${!running[@]}"; do
    wait "${running[$tool]}" || { result=1; echo "$tool failed"; }
    echo "-- $tool"; tail -n 4 "$out/$tool.log"
  done
  return $result
}
build() {
  local as_it_is=()
  python -c 'import scikit_build_core, nanobind, numpy, pytest' && as_it_is=(--no-deps --no-build-isolation)
  python -m pip install --quiet "${as_it_is[@]}" -C cmake.define.NORMKIT_CUDA=ON -C cmake.define.NORMKIT_ISAS=avx2 \
    -C "cmake.define.CMAKE_CUDA_ARCHITECTURES=$architecture-real" '.[test]'
}
export -f sanitize build
export few out architecture

runs build && step build 500 bash -c build
runs test && step test 300 python -m pytest -q tests/test_cuda.py tests/test_cuda_torch.py
runs bench && step bench 500 python bench/gpu.py --json "$out/gpu.json" ${QUICK:+--quick}
runs modules && step modules 120 python bench/torch_steps.py --device cuda
runs sanitize && step sanitize 320 bash -c sanitize
[[ ${#failed[@]} -eq 0 ]] || { echo "failed: ${failed[*]}"; exit 1; }
