# SPDX-License-Identifier: Apache-2.0
"""`worldsystem eval`: a path and a surface against ground truth."""

from __future__ import annotations

import argparse
import math

from worldsystem.amounts import number
from worldsystem.disk_errors import with_disk_errors_told
from worldsystem.evaluation.alignment import ALIGNMENTS
from worldsystem.settings_text import written_path

_WRONG_USE = 2


def add_eval(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `eval`."""
    command = commands.add_parser(
        "eval",
        help="compare a path and a surface with ground truth",
        description="ESTIMATE is a run's folder or a TUM trajectory. TRUTH is the simulator's "
        "folder, that of a sequence of TUM RGB-D, 7-Scenes, Replica, EuRoC or KITTI odometry, or a "
        "trajectory file. The protocols are in docs/evaluation.md.",
    )
    command.add_argument("estimate", type=written_path, nargs="?", metavar="ESTIMATE")
    command.add_argument("truth", type=written_path, nargs="?", metavar="TRUTH")
    command.add_argument("--mesh", type=written_path, help="estimated surface (default: the run's)")
    command.add_argument("--truth-mesh", type=written_path, help="true surface, as PLY, OBJ or GLB")
    command.add_argument(
        "--threshold",
        type=_positive,
        nargs="+",
        default=[],
        help="F-score thresholds [truth units] (default: 1 %% of the scene)",
    )
    command.add_argument(
        "--align",
        choices=ALIGNMENTS,
        default="sim3",
        help="how the surface is placed: with the scale fitted, or as estimated",
    )
    command.add_argument(
        "--offset", type=number, default=0.0, help="added to the estimate's stamps [s]"
    )
    command.add_argument("--frames", type=int, default=0, help="frames that were to be tracked")
    command.add_argument(
        "--out", type=written_path, help="folder for JSON, plots and the coloured cloud"
    )
    command.add_argument(
        "--self-check", action="store_true", help="only check the evaluation on known answers"
    )
    command.set_defaults(command=with_disk_errors_told(_eval))


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no length above 0")
    return value


def _eval(options: argparse.Namespace) -> int:
    from worldsystem.evaluation.selfcheck import self_check

    checks = self_check()
    failed = [check for check in checks if not check.passed]
    if options.self_check or failed:
        for check in checks:
            mark = "ok" if check.passed else "WRONG"
            print(f"{mark:6s}{check.name:52s} {check.value:.6g} (known: {check.wanted:.6g})")
        return 1 if failed else 0
    if options.estimate is None or options.truth is None:
        print("worldsystem eval: name ESTIMATE and TRUTH (or --self-check); see --help")
        return _WRONG_USE
    return _judge(options)


def _judge(options: argparse.Namespace) -> int:
    from worldsystem.evaluation.compare import evaluate
    from worldsystem.evaluation.datasets import truth_at
    from worldsystem.evaluation.estimate import read_estimate
    from worldsystem.evaluation.outcome import table_text, write_evaluation

    poses, mesh = read_estimate(options.estimate, mesh=options.mesh, offset_s=options.offset)
    evaluation = evaluate(
        poses,
        mesh,
        truth_at(options.truth, mesh=options.truth_mesh),
        thresholds=tuple(options.threshold),
        alignment=options.align,
        frame_count=options.frames,
    )
    print(table_text(evaluation))
    if not evaluation.path.aligned:
        print(
            f"only {evaluation.path.matched} poses match in time; three are needed. Are the stamps "
            "of one clock? --offset shifts the estimate's"
        )
        return 1
    if options.out is not None:
        for path in write_evaluation(evaluation, options.out):
            print(f"written: {path}")
    return 0
