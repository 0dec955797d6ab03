# SPDX-License-Identifier: Apache-2.0
"""Surface errors: offset, half-missing, spurious and empty surfaces must score what they are."""

import numpy as np
import open3d as o3d
import pytest
from scipy.spatial.transform import Rotation

from worldsystem.evaluation.cloud import read_surface
from worldsystem.evaluation.surface import (
    SurfaceDistance,
    area_samples,
    evaluate_surface,
    transformed,
)
from worldsystem_core.errors import SourceError
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.surface import Mesh


def mesh_from(shape: o3d.geometry.TriangleMesh) -> Mesh:
    vertices = np.asarray(shape.vertices).astype(np.float32)
    return Mesh(
        vertices=vertices,
        colours=np.full((len(vertices), 3), 128, np.uint8),
        faces=np.asarray(shape.triangles).astype(np.int32),
    )


def sphere(radius: float, resolution: int = 100) -> Mesh:
    return mesh_from(o3d.geometry.TriangleMesh.create_sphere(radius, resolution))


def floor(x0: float, x1: float, height: float = 0.0) -> Mesh:
    """A 1-unit-wide strip from x0 to x1."""
    corners = [[x0, 0, height], [x1, 0, height], [x1, 1, height], [x0, 1, height]]
    return Mesh(
        vertices=np.array(corners, np.float32),
        colours=np.zeros((4, 3), np.uint8),
        faces=np.array([[0, 1, 2], [0, 2, 3]], np.int32),
    )


def test_a_sphere_that_is_too_big_is_wrong_by_the_difference_everywhere():
    truth, estimate = sphere(1.0), sphere(1.03)
    error = evaluate_surface(estimate, truth, area_samples(truth, 50_000), 0.02)
    # chords of a 100-segment sphere lie up to 5e-4 inside it
    assert error.accuracy_mean == pytest.approx(0.03, abs=1e-3)
    assert error.accuracy_median == pytest.approx(0.03, abs=1e-3)
    assert error.completeness_mean == pytest.approx(0.03, abs=1e-3)
    assert error.fscore == 0.0
    assert evaluate_surface(estimate, truth, area_samples(truth, 500), 0.04).fscore == 1.0


def test_the_true_mesh_itself_has_no_error_even_at_a_tiny_threshold():
    truth = sphere(1.0, 20)
    error = evaluate_surface(truth, truth, area_samples(truth, 20_000), 1e-5)
    assert error.fscore == 1.0
    assert error.accuracy_mean < 1e-6


def test_a_map_far_from_the_origin_keeps_its_precision():
    truth = floor(5_000.0, 5_001.0, height=2_000.0)
    raised = floor(5_000.0, 5_001.0, height=2_000.5)
    error = evaluate_surface(raised, truth, area_samples(truth, 1000), 0.1)
    assert error.accuracy_mean == pytest.approx(0.5, abs=1e-3)


def test_half_of_the_surface_missing_is_a_recall_of_one_half():
    truth, half = floor(0.0, 2.0), floor(0.0, 1.0)
    error = evaluate_surface(half, truth, area_samples(truth, 100_000), 0.001)
    assert error.precision == 1.0
    assert error.recall == pytest.approx(0.5, abs=0.01)  # 100 000 draws: sigma 0.0016
    assert error.fscore == pytest.approx(2 / 3, abs=0.01)


def test_surface_that_was_never_seen_need_not_be_reconstructed():
    truth, half = floor(0.0, 2.0), floor(0.0, 1.0)
    seen = area_samples(truth, 10_000)
    assert evaluate_surface(half, truth, seen[seen[:, 0] < 1.0], 0.001).fscore == 1.0


def test_surface_where_the_truth_has_none_counts_as_wrong():
    truth, with_ghost = floor(0.0, 1.0), floor(0.0, 4.0)
    error = evaluate_surface(with_ghost, truth, area_samples(truth, 10_000), 0.01)
    assert error.precision == pytest.approx(0.25, abs=0.01)
    assert error.recall == 1.0
    assert error.accuracy_mean == pytest.approx(9 / 8, abs=0.02)  # ∫0..3 x dx / 4


def test_nothing_reconstructed_scores_zero_and_does_not_crash():
    truth = sphere(1.0, 20)
    error = evaluate_surface(Mesh.empty(), truth, area_samples(truth, 100), 0.1)
    assert (error.precision, error.recall, error.fscore) == (0.0, 0.0, 0.0)
    assert np.isnan(error.accuracy_mean)


def test_an_empty_truth_makes_every_surface_wrong():
    error = evaluate_surface(sphere(1.0, 20), Mesh.empty(), np.zeros((0, 3)), 0.1)
    assert error.precision == 0.0
    assert np.isnan(error.fscore)


def test_faces_with_nan_corners_are_left_out():
    truth = floor(0.0, 1.0)
    broken = Mesh(
        vertices=np.concatenate([truth.vertices, np.full((1, 3), np.nan, np.float32)]),
        colours=np.zeros((5, 3), np.uint8),
        faces=np.concatenate([truth.faces, np.array([[0, 1, 4]], np.int32)]),
    )
    error = evaluate_surface(broken, truth, area_samples(truth, 1000), 0.01)
    assert error.fscore == 1.0
    assert np.isnan(SurfaceDistance(broken)(np.full((1, 3), np.nan)))[0]


def test_samples_follow_the_area_not_the_triangle_count():
    big, small = floor(0.0, 9.0), floor(20.0, 21.0)
    both = Mesh(
        vertices=np.concatenate([big.vertices, small.vertices]),
        colours=np.zeros((8, 3), np.uint8),
        faces=np.concatenate([big.faces, small.faces + 4]),
    )
    samples = area_samples(both, 50_000)
    assert (samples[:, 0] > 15).mean() == pytest.approx(0.1, abs=0.01)
    assert samples[samples[:, 0] < 15].mean(axis=0) == pytest.approx([4.5, 0.5, 0.0], abs=0.05)


def test_a_threshold_of_zero_is_refused():
    with pytest.raises(ValueError, match="positive"):
        evaluate_surface(sphere(1.0, 5), sphere(1.0, 5), np.zeros((1, 3)), 0.0)


def test_a_mesh_taken_to_another_frame_and_back_is_where_it_was():
    there = Sim3(3.0, Rotation.from_euler("x", 1.0).as_matrix(), np.array([1.0, 2.0, 3.0]))
    mesh = sphere(1.0, 10)
    back = transformed(transformed(mesh, there), there.inverse())
    np.testing.assert_allclose(back.vertices, mesh.vertices, atol=1e-5)


def test_a_surface_in_map_coordinates_is_refused_instead_of_rounded(tmp_path):
    """In 32 bits a northing of 5 249 000 m is known to half a metre."""
    for name, east, north in (("near", 0, 0), ("grid", 465_000, 5_249_000)):
        corners = ((0, 0), (40, 0), (40, 40), (0, 40))
        text = "".join(f"v {east + x}.25 {north + y}.25 400\n" for x, y in corners)
        (tmp_path / f"{name}.obj").write_text(text + "f 1 2 3\nf 1 3 4\n")
    assert len(read_surface(tmp_path / "near.obj").faces) == 2
    with pytest.raises(SourceError, match=r"grid\.obj lies so far.*rounded to 0\.5 "):
        read_surface(tmp_path / "grid.obj")
