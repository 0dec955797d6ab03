# SPDX-License-Identifier: Apache-2.0
"""Files that other programs read: the same surface, fewer faces, the picture where it belongs."""

from __future__ import annotations

import errno
import json
import tracemalloc
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import trimesh

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.geometry.se3 import look_at, transform
from worldsystem_core.surface import Mesh
from worldsystem_mesh.export import decimation, files
from worldsystem_mesh.export.atlas import packed, textured
from worldsystem_mesh.export.best_photo import (
    GOOD_ENOUGH,
    NO_PHOTO,
    VOTES,
    best_photos,
    face_neighbours,
    face_scores,
)
from worldsystem_mesh.export.decimation import decimated
from worldsystem_mesh.export.files import ExportError, save_mesh
from worldsystem_mesh.export.textured import Photo

CAMERA = Camera.from_horizontal_fov(160, 120, 1.2)
UP = np.array([0.0, 1.0, 0.0])


def shade(places: np.ndarray) -> np.ndarray:
    """Smooth colours of the plane z = 0, by place."""
    x, y = places[..., 0], places[..., 1]
    wave = np.stack([np.sin(3 * x), np.cos(2 * y), np.sin(x + 2 * y)], axis=-1)
    return np.clip(128 + 100 * wave, 0, 255)


def plane(cells: int = 40, size: float = 1.5) -> Mesh:
    """A square of the plane z = 0 around the origin, seen from above; vertex colours are grey."""
    line = np.linspace(-size / 2, size / 2, cells + 1)
    x, y = np.meshgrid(line, line)
    at = np.arange((cells + 1) ** 2).reshape(cells + 1, cells + 1)
    a, b, c, d = at[:-1, :-1].ravel(), at[:-1, 1:].ravel(), at[1:, :-1].ravel(), at[1:, 1:].ravel()
    return Mesh(
        vertices=np.stack([x, y, 0 * x], axis=-1).reshape(-1, 3).astype(np.float32),
        colours=np.full(((cells + 1) ** 2, 3), 90, np.uint8),
        faces=np.concatenate([np.stack([a, b, d], -1), np.stack([a, d, c], -1)]).astype(np.int32),
    )


def photo_from(eye: tuple[float, float, float], blocked: bool = False) -> Photo:
    """What a camera over the plane sees of it; `blocked`: something stands before it."""
    pose = look_at(np.array(eye), np.array([0.7 * eye[0], 0.7 * eye[1], 0.0]), UP)
    rays = pointmap_from_depth(np.ones((CAMERA.height, CAMERA.width)), CAMERA)
    depth = -pose[2, 3] / (rays @ pose[2, :3])
    places = transform(pose, pointmap_from_depth(depth, CAMERA))
    return Photo(
        rgb=np.nan_to_num(np.rint(shade(places))).astype(np.uint8),
        depth=(0.5 * depth if blocked else depth).astype(np.float32),
        camera=CAMERA,
        world_from_cam=pose,
    )


PHOTOS = [photo_from((-0.6, 0.0, 1.2)), photo_from((0.6, 0.1, 1.1)), photo_from((0, -0.5, 1.3))]


def sampled(picture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Bilinear texture look-up, as a renderer does it."""
    px = uv * np.array(picture.shape[1::-1]) - 0.5
    low = np.clip(np.floor(px).astype(int), 0, np.array(picture.shape[1::-1]) - 2)
    t = px - low
    found = np.zeros((len(uv), 3))
    for dx in (0, 1):
        for dy in (0, 1):
            weight = np.abs(1 - dx - t[:, 0]) * np.abs(1 - dy - t[:, 1])
            found += weight[:, None] * picture[low[:, 1] + dy, low[:, 0] + dx]
    return found


def test_the_texture_shows_at_each_place_what_the_photos_saw_there():
    mesh = plane()
    made = textured(mesh, PHOTOS)
    assert len(made.faces) == len(mesh.faces)
    np.testing.assert_array_equal(made.vertices[made.faces], mesh.vertices[mesh.faces])
    seen = best_photos(mesh, PHOTOS) != NO_PHOTO
    assert seen.mean() > 0.9
    faces = made.faces[seen]
    for weights in ([1 / 3] * 3, [0.8, 0.1, 0.1], [0, 0.5, 0.5]):
        places = np.einsum("k,fkc->fc", weights, made.vertices[faces].astype(float))
        uv = np.einsum("k,fkc->fc", weights, made.uv[faces].astype(float))
        error = np.abs(sampled(made.texture, uv) - shade(places))
        assert error.mean() < 1.5
        assert np.percentile(error, 99) < 8


def test_faces_that_no_photo_shows_keep_their_colour():
    mesh = plane()
    for photos in ([], [photo_from((0, 0, 1.5), blocked=True)]):
        assert (best_photos(mesh, photos) == NO_PHOTO).all()
        made = textured(mesh, photos)
        centres = made.uv[made.faces].mean(axis=1)
        assert np.abs(sampled(made.texture, centres) - 90).max() <= 4


def test_a_face_seen_from_behind_or_aslant_is_not_textured():
    turned = plane()
    turned = Mesh(
        vertices=turned.vertices, colours=turned.colours, faces=turned.faces[:, ::-1].copy()
    )
    assert (best_photos(turned, PHOTOS) == NO_PHOTO).all()
    assert (best_photos(plane(), [photo_from((0.0, -12.0, 0.5))]) == NO_PHOTO).all()


def test_a_large_face_is_not_cut_from_a_photo_in_which_something_hides_its_middle():
    """As a wall of few faces behind a chair: all corners are seen."""
    wall, photo = plane(1), photo_from((0.0, 0.0, 2.0))
    assert (best_photos(wall, [photo]) == 0).all()
    photo.depth[50:70, 70:90] *= 0.5
    assert (best_photos(wall, [photo]) == NO_PHOTO).all()


def test_neighbours_take_the_same_photo_where_that_costs_little():
    best = best_photos(plane(), PHOTOS)
    shares = [(best == number).mean() for number in range(3)]
    assert min(shares) > 0.05
    row = best.reshape(2, 40, 40)[0]
    changes = (row[:, 1:] != row[:, :-1]).mean()
    assert changes < 0.06  # three connected parts, not a mosaic


def best_by_table(mesh: Mesh, photos: list[Photo]) -> tuple[np.ndarray, np.ndarray]:
    """The best photos with a table of all scores, before and after the votes."""
    none = np.zeros(len(mesh.faces), np.float32)
    scores = np.stack([*(face_scores(photo, mesh) for photo in photos), none])
    first = np.where(scores.max(axis=0) > 0, scores.argmax(axis=0), NO_PHOTO)
    best = first
    pairs = face_neighbours(mesh)
    for _ in range(VOTES):
        before, best = best, best.copy()
        for face in range(len(mesh.faces)):
            beside = [*pairs[pairs[:, 0] == face, 1], *pairs[pairs[:, 1] == face, 0]]
            given = [photo for photo in before[beside].tolist() if photo != before[face]]
            photo = max(set(given), key=given.count, default=NO_PHOTO)
            found, had = scores[photo, face], scores[before[face], face]
            if given.count(photo) >= 2 and found > 0 and found >= GOOD_ENOUGH * had:
                best[face] = photo
    return first, best


def rough_plane(cells: int) -> Mesh:
    """Its faces look many ways, so that neighbours are shown best by different photos."""
    flat = plane(cells)
    rng = np.random.default_rng(0)
    height = rng.normal(0, 0.2 * 1.5 / cells, len(flat.vertices)).astype(np.float32)
    vertices = flat.vertices + height[:, None] * np.array([0, 0, 1], np.float32)
    return Mesh(vertices=vertices, colours=flat.colours, faces=flat.faces)


def test_photos_are_chosen_as_with_a_table_of_all_scores():
    mesh = rough_plane(24)
    photos = [*PHOTOS, photo_from((0.2, 0.5, 1.2)), photo_from((0, 0, 1.5), blocked=True)]
    first, best = best_by_table(mesh, photos)
    assert (first != best).mean() > 0.01
    np.testing.assert_array_equal(best_photos(mesh, photos), best)


def test_memory_does_not_grow_with_the_number_of_photos():
    def peak_bytes(photos: list[Photo]) -> int:
        tracemalloc.start()
        best_photos(mesh, photos)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    mesh = plane(30)
    peak_bytes(PHOTOS)
    assert peak_bytes(100 * PHOTOS) < 1.3 * peak_bytes(PHOTOS)


def test_rectangles_are_packed_without_overlap_and_densely():
    rng = np.random.default_rng(0)
    sizes = [(int(w), int(h)) for w, h in rng.integers(3, 60, (300, 2))]
    places, (width, height) = packed(sizes)
    used = np.zeros((height, width), int)
    for (x, y), (w, h) in zip(places, sizes, strict=True):
        used[y : y + h, x : x + w] += 1
    assert used.max() == 1
    assert used.mean() > 0.8
    assert packed([]) == ([], (1, 1))


def test_decimation_keeps_shape_and_colour_with_fewer_faces():
    ball = trimesh.creation.icosphere(4, 1.0)
    colours = np.rint(127.5 + 127.5 * ball.vertices).astype(np.uint8)
    mesh = Mesh(
        vertices=ball.vertices.astype(np.float32),
        colours=colours,
        faces=ball.faces.astype(np.int32),
    )
    few = decimated(mesh, 500)
    assert 400 < len(few.faces) <= 500
    assert np.abs(np.linalg.norm(few.vertices, axis=1) - 1).max() < 0.03
    assert np.abs(few.colours - (127.5 + 127.5 * few.vertices)).mean() < 6
    assert decimated(mesh, 0) is mesh
    assert decimated(mesh, 10**6) is mesh


def test_a_large_mesh_is_decimated_in_another_process(monkeypatch):
    """Open3D holds the interpreter lock while it works: here all stages would stand still."""

    def here(*_: object) -> None:
        raise AssertionError("it works in this process")

    monkeypatch.setattr(decimation, "_with_fewer_faces", here)
    mesh = rough_plane(180)
    few = decimated(mesh, 6000)
    assert len(mesh.faces) > 10 * 6000
    assert 5900 < len(few.faces) <= 6000


def test_a_decimation_that_ends_early_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(decimation, "_work", Connection.close)
    with pytest.raises(ExportError, match=r"a\.ply not written: decimation ended with 0"):
        save_mesh(tmp_path / "a.ply", plane(), max_faces=100)
    assert not list(tmp_path.iterdir())


def glb_document(path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    assert int.from_bytes(content[8:12], "little") == len(content)
    size = int.from_bytes(content[12:16], "little")
    return json.loads(content[20 : 20 + size]), content[28 + size :]


def glb_colours(path) -> np.ndarray:
    """Vertex colours as sRGB; in the file they are linear, in 16 bits."""
    document, data = glb_document(path)
    number = document["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]
    view = document["bufferViews"][document["accessors"][number]["bufferView"]]
    raw = data[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    levels = np.frombuffer(raw, "<u2").reshape(-1, 4) / 65535
    return 255 * np.where(levels <= 0.0031308, 12.92 * levels, 1.055 * levels ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("ending", ["ply", "obj", "glb"])
def test_a_mesh_file_holds_the_mesh(tmp_path, ending):
    mesh = plane(8)
    mesh = Mesh(
        vertices=mesh.vertices + np.float32(0.25),
        colours=np.rint(shade(mesh.vertices)).astype(np.uint8),
        faces=mesh.faces,
    )
    written = save_mesh(tmp_path / f"a.{ending}", mesh)
    assert (written.vertex_count, written.face_count) == (81, 128)
    back = trimesh.load(tmp_path / f"a.{ending}", process=False, force="mesh")
    vertices = np.asarray(back.vertices)
    if ending == "glb":
        vertices = np.stack([vertices[:, 0], -vertices[:, 2], vertices[:, 1]], axis=-1)
    np.testing.assert_allclose(vertices, mesh.vertices, atol=1e-5)
    np.testing.assert_array_equal(back.faces, mesh.faces)
    colours = glb_colours(tmp_path / "a.glb") if ending == "glb" else back.visual.vertex_colors
    assert np.abs(np.asarray(colours, float)[:, :3] - mesh.colours).max() <= 1
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("ending", ["obj", "glb"])
def test_a_textured_file_holds_the_picture_the_right_way_up(tmp_path, ending):
    written = save_mesh(tmp_path / f"a.{ending}", plane(), photos=PHOTOS)
    assert all(path.exists() for path in written.files)
    back = trimesh.load(tmp_path / f"a.{ending}", process=False, force="mesh")
    material = back.visual.material
    image = material.image if ending == "obj" else material.baseColorTexture
    picture = np.asarray(image.convert("RGB"))
    uv = np.asarray(back.visual.uv) * [1, -1] + [0, 1]  # trimesh counts from below
    places = np.asarray(back.vertices)
    if ending == "glb":
        places = np.stack([places[:, 0], -places[:, 2], places[:, 1]], axis=-1)
    error = np.abs(sampled(picture, uv) - shade(places))
    assert np.median(error) < 4
    assert (error.max(axis=1) < 25).mean() > 0.85


def test_glb_says_that_it_is_unlit(tmp_path):
    save_mesh(tmp_path / "a.glb", plane(2))
    document, _ = glb_document(tmp_path / "a.glb")
    assert document["extensionsUsed"] == ["KHR_materials_unlit"]


def test_what_cannot_be_written_is_said(tmp_path):
    with pytest.raises(ExportError, match=r"known: \.ply, \.obj, \.glb"):
        save_mesh(tmp_path / "a.stl", plane())
    with pytest.raises(ExportError, match="no surface yet"):
        save_mesh(tmp_path / "a.ply", Mesh.empty())
    with pytest.raises(ExportError, match="can have a texture"):
        save_mesh(tmp_path / "a.ply", plane(), photos=PHOTOS)
    with pytest.raises(ExportError, match="cannot write"):
        save_mesh(tmp_path / "no such folder" / "a.ply", plane())
    broken = plane()
    broken.vertices[0, 0] = np.nan
    with pytest.raises(ExportError, match="not finite"):
        save_mesh(tmp_path / "a.ply", broken)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", [".ply", ".obj", ".glb"])
def test_so_few_faces_that_none_is_left_make_no_file(tmp_path, monkeypatch, ending):
    """Open3D leaves none of a closed surface for one."""
    monkeypatch.setattr(files, "decimated", lambda _mesh, _most: Mesh.empty())
    with pytest.raises(ExportError, match="max_faces = 1 leaves no surface"):
        save_mesh(tmp_path / f"a{ending}", plane(), max_faces=1)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_is_left_without_half_a_file(tmp_path, monkeypatch):
    def write_half(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(ExportError, match="No space left"):
        save_mesh(tmp_path / "a.glb", plane(2))
    assert not list(tmp_path.iterdir())


def test_an_obj_appears_after_what_it_refers_to(tmp_path, monkeypatch):
    """Whoever waits for the file finds its material and its picture."""
    written, write_whole = [], files.write_whole

    def noted(path: Path, content: bytes) -> None:
        written.append(path.name)
        write_whole(path, content)

    monkeypatch.setattr(files, "write_whole", noted)
    save_mesh(tmp_path / "a.obj", plane(8), photos=PHOTOS)
    assert sorted(written) == ["a.mtl", "a.obj", "a.png"]
    assert written[-1] == "a.obj"
