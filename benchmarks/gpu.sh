#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that needs a CUDA device: the tests marked `gpu`, then the benchmarks whose kernels run
# there. Needs Python with torch, Warp, transformers and pytest, but neither ROS nor a build. About
# six minutes on an H100.
#   benchmarks/gpu.sh [SUFFIX] [PART...]    PART: tests cuda mesh slam3r segment splats (all without one)
# Results go to benchmarks/results/<name>_SUFFIX.json. A part that fails does not stop the others.
set -uo pipefail
cd "$(dirname "$0")/.."
export BENCH_SUFFIX="_${1:-gpu}"
shift || true
known="tests cuda mesh slam3r segment splats"
parts="${*:-$known}"
for package in src/worldsystem*/; do PYTHONPATH="$PWD/$package:${PYTHONPATH-}"; done
export PYTHONPATH
python3 -c 'import torch; assert torch.cuda.is_available(), "no CUDA device answers"' || exit 1
failed=()
run() { "$@" || failed+=("$*"); }

tests() {
  # files without such tests may import what this machine lacks
  mapfile -t files < <(grep -rl --include='test_*.py' 'mark\.gpu' test)
  run python3 -m pytest -q -m gpu "${files[@]}"
}
cuda() { run python3 benchmarks/bench_cuda.py; }
mesh() { run python3 benchmarks/bench_mesh.py; }
slam3r() {
  run python3 benchmarks/bench_slam3r.py --device cuda --frames "${FRAMES:-400}"
  BENCH_SUFFIX="${BENCH_SUFFIX}_graphs" \
    run python3 benchmarks/bench_slam3r.py --device cuda --frames "${FRAMES:-400}" --graphs
  BENCH_SUFFIX="${BENCH_SUFFIX}_compiled" \
    run python3 benchmarks/bench_slam3r.py --device cuda --frames "${FRAMES:-400}" --compiled
}
segment() { run python3 benchmarks/bench_segment_gpu.py; }
splats() { run python3 benchmarks/bench_splats_da3.py small base large giant; }

for part in $parts; do
  export BENCH_COMMAND="benchmarks/gpu.sh ${BENCH_SUFFIX#_} $part"
  case " $known " in
    *" $part "*) "$part" ;;
    *) failed+=("$part, which is none of: $known") ;;
  esac
done
if ((${#failed[@]})); then
  printf 'failed: %s\n' "${failed[@]}"
  exit 1
fi
