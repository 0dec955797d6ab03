#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that needs a CUDA device: the tests marked `gpu`, then the benchmarks whose kernels run
# there. Needs Python with the libraries of tools/requirements.txt, but neither ROS nor a build.
#   benchmarks/gpu.sh [SUFFIX]      results go to benchmarks/results/<name>_SUFFIX.json
set -euo pipefail
cd "$(dirname "$0")/.."
export BENCH_SUFFIX="_${1:-gpu}"
for package in src/worldsystem*/; do PYTHONPATH="$PWD/$package:${PYTHONPATH-}"; done
export PYTHONPATH
python3 -c 'import warp; warp.init(); assert warp.is_cuda_available(), "no CUDA device answers"'
python3 -m pytest -m gpu test
python3 benchmarks/bench_mesh.py
python3 benchmarks/bench_slam3r.py --device cuda
BENCH_SUFFIX="${BENCH_SUFFIX}_graphs" python3 benchmarks/bench_slam3r.py --device cuda --graphs
BENCH_SUFFIX="${BENCH_SUFFIX}_compiled" python3 benchmarks/bench_slam3r.py --device cuda --compiled
python3 benchmarks/bench_segment_gpu.py
# Depth Anything 3 with random weights: frames a second and memory by size
for size in base giant; do
  BENCH_SUFFIX="${BENCH_SUFFIX}_$size" python3 benchmarks/bench_splats.py --random "$size"
done
