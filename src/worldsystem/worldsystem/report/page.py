# SPDX-License-Identifier: Apache-2.0
"""`report.html`: one page that carries its pictures, so that it can be mailed whole."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import jinja2

from worldsystem.report.pictures import run_pictures
from worldsystem.report.record import RunRecord
from worldsystem.report.summary import RunSummary, Verdict, summarise, write_summary
from worldsystem_core.reconstruction import ScaleState

MAX_FILES_LISTED = 60
REPORT_NAME = "report.html"
SUMMARY_NAME = "summary.json"


@dataclass(frozen=True)
class LedgerRow:
    """One stage's account, ready to print."""

    stage: str
    taken: int
    used: int
    dropped: str
    in_flight: int
    missing: int | None
    adds_up: bool


@dataclass(frozen=True)
class FileRow:
    """One file or folder that the run left."""

    name: str
    href: str
    size: str


def write_report(run: RunRecord, folder: Path) -> Path:
    """Write `report.html`, `summary.json` and `pictures/*.png` to `folder`; return the page's path.

    The page needs no other file and no network. `folder` is made when it is missing; a run without
    truth, mesh, poses or samples gives a page without those parts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarise(run)
    write_summary(run, summary, folder / SUMMARY_NAME)
    pictures = run_pictures(run, summary)
    _save_pictures(pictures, folder / "pictures")
    path = folder / REPORT_NAME
    path.write_text(_html(run, summary, pictures, folder), encoding="utf-8")
    return path


def _save_pictures(pictures: dict[str, bytes], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, png in pictures.items():
        (folder / name).write_bytes(png)


def _html(run: RunRecord, summary: RunSummary, pictures: dict[str, bytes], folder: Path) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("template.html").render(
        run=run,
        summary=summary,
        headline=_headline(summary),
        targets={verdict.id: _target_text(verdict) for verdict in summary.verdicts},
        pictures={name: _data_uri(png) for name, png in pictures.items()},
        ledger=_ledger_rows(run),
        path_facts=_path_facts(run, summary),
        surface_facts=_surface_facts(run, summary),
        facts=_run_facts(run),
        files=_files(run.folder, folder),
    )


def _headline(summary: RunSummary) -> str:
    bad = [verdict.label for verdict in summary.verdicts if verdict.state == "bad"]
    unknown = sum(verdict.state == "unknown" for verdict in summary.verdicts)
    good = len(summary.verdicts) - len(bad) - unknown
    if not bad:
        told = f"All {good} figures that could be measured reach their targets."
    else:
        told = f"{good} of {good + len(bad)} figures reach their targets; not: {', '.join(bad)}."
    return told + (f" {unknown} could not be measured." if unknown else "")


def _target_text(verdict: Verdict) -> str:
    if verdict.target == 0 and not verdict.higher_is_better:
        return "target 0"
    return f"target {'≥' if verdict.higher_is_better else '≤'} {verdict.target:g}"


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _ledger_rows(run: RunRecord) -> list[LedgerRow]:
    return [
        LedgerRow(
            stage=ledger.stage,
            taken=ledger.taken,
            used=ledger.used,
            dropped=", ".join(f"{why.replace('_', ' ')} {n:,}" for why, n in ledger.dropped.items())
            or "none",
            in_flight=ledger.in_flight,
            missing=run.missing_at(ledger),
            adds_up=run.adds_up(ledger),
        )
        for ledger in run.ledgers
    ]


def _path_facts(run: RunRecord, summary: RunSummary) -> list[tuple[str, str]]:
    unit = run.length_unit
    error = summary.trajectory
    if error is None:
        return [("estimated path", f"{run.poses.path_length:.4g} {unit}")]
    per_unit_deg = math.degrees(error.rpe_rad_per_unit)
    return [
        ("true path", f"{_number(error.true_path_length)} {unit}"),
        ("poses matched", f"{error.matched:,}"),
        (
            "ATE after Sim(3)",
            f"{_number(error.ate_sim3)} {unit} ({_number(error.ate_sim3_percent)} %)",
        ),
        (
            "ATE after SE(3), scale as estimated",
            f"{_number(error.ate_se3)} {unit} ({_number(error.ate_se3_percent)} %)",
        ),
        (
            f"drift (RPE over {_number(error.rpe_step)} {unit})",
            f"{_number(100 * error.rpe_per_unit)} %, {_number(per_unit_deg)}°/{unit}",
        ),
        ("scale: true over estimated", _number(error.truth_from_estimate.scale)),
        ("scale drift, first to last third", f"{_number(100 * error.scale_drift)} %"),
    ]


def _surface_facts(run: RunRecord, summary: RunSummary) -> list[tuple[str, str]]:
    unit = run.length_unit
    error = summary.surface
    if error is None:
        return []
    return [
        (
            "accuracy, estimate → truth",
            f"mean {_number(error.accuracy_mean)}, median {_number(error.accuracy_median)} {unit}",
        ),
        (
            "completeness, seen truth → estimate",
            f"mean {_number(error.completeness_mean)}, "
            f"median {_number(error.completeness_median)} {unit}",
        ),
        (
            f"precision, recall, F-score within {_number(error.threshold)} {unit}",
            f"{error.precision:.3f}, {error.recall:.3f}, {error.fscore:.3f}",
        ),
        ("points asked", f"{error.n_samples:,} on the estimate, {error.n_seen:,} seen"),
    ]


def _run_facts(run: RunRecord) -> list[tuple[str, str]]:
    started = datetime.fromtimestamp(run.started_ns * 1e-9, UTC)
    sent = "not counted" if run.frames_sent is None else f"{run.frames_sent:,}"
    scale = "metres" if run.scale is ScaleState.METRIC else "unknown (scene units)"
    facts = [
        ("source", run.source),
        ("back-end", run.backend),
        ("started", started.strftime("%Y-%m-%d %H:%M:%S UTC")),
        ("duration", f"{run.duration_s:,.1f} s"),
        ("frames sent", sent),
        ("poses", f"{len(run.poses):,}"),
        ("keyframes", f"{run.keyframe_count:,}"),
        ("mesh", f"{len(run.mesh.faces):,} triangles, {len(run.mesh.vertices):,} vertices"),
        ("scale", scale),
        ("commit", run.commit),
    ]
    return facts + list(run.versions.items())


def _files(run_folder: Path, report_folder: Path) -> list[FileRow]:
    """What the run left, biggest first; links work where the file lies below the report."""
    if not run_folder.is_dir():
        return []
    own = {report_folder / REPORT_NAME, report_folder / SUMMARY_NAME}
    found = [path for path in run_folder.rglob("*") if path.is_file() and path not in own]
    found = [path for path in found if (report_folder / "pictures") not in path.parents]
    sized = sorted(((path.stat().st_size, path) for path in found), key=lambda row: -row[0])
    rows = [
        FileRow(
            str(path.relative_to(run_folder)),
            path.relative_to(report_folder).as_posix()
            if path.is_relative_to(report_folder)
            else path.resolve().as_uri(),
            _size(size),
        )
        for size, path in sized[:MAX_FILES_LISTED]
    ]
    if rest := sized[MAX_FILES_LISTED:]:
        rows.append(FileRow(f"… and {len(rest)} more", "", _size(sum(size for size, _ in rest))))
    return rows


def _size(byte_count: int) -> str:
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if byte_count >= limit:
            return f"{byte_count / limit:.1f} {unit}"
    return f"{byte_count} B"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "not known"
    return "0" if abs(value) < 1e-6 else f"{value:.3g}"
