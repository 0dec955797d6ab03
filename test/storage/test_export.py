# SPDX-License-Identifier: Apache-2.0
"""Each format is opened by a reader that is not ours, and must tell what was recorded."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import laspy
import numpy as np
import pycolmap
import pytest
import trimesh
from evo.tools import file_interface
from plyfile import PlyData
from pycocotools.coco import COCO

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.se3 import inverse, look_at, transform
from worldsystem_core.gltf import linear_from_srgb
from worldsystem_core.message_definitions import message_definition
from worldsystem_core.objects import Track, TrackFrame, TrackState
from worldsystem_core.reconstruction import (
    Keyframe,
    MovedKeyframes,
    NewKeyframe,
    RemovedKeyframes,
    ScaleState,
)
from worldsystem_core.ros import topics
from worldsystem_core.ros.definitions import share_folders, type_name
from worldsystem_core.splats.files import read_spz
from worldsystem_core.surface import Mesh
from worldsystem_core.trajectory import StampedPoses, write_tum
from worldsystem_storage.bag_writer import BagWriter
from worldsystem_storage.config import StorageConfig
from worldsystem_storage.errors import StorageError
from worldsystem_storage.export.formats import FORMATS, export
from worldsystem_storage.export.recorded import RecordedRun
from worldsystem_storage.mesh_files import write_ply
from worldsystem_storage.video_file import VideoSession

CAMERA = Camera(width=40, height=30, fx=35.0, fy=36.0, cx=19.0, cy=14.5)
STAMP = 1_700_000_000 * 10**9
TETRAHEDRON = Mesh(
    vertices=np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 2]], np.float32),
    colours=np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 64, 32]], np.uint8),
    faces=np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]], np.int32),
)


def pose(number: int) -> np.ndarray:
    eye = np.array([2.0 + 0.5 * number, -3.0, 1.5])
    return look_at(eye, np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0]))


def keyframe(number: int, world_from_cam: np.ndarray) -> Keyframe:
    """Sees the ground z = 0 of the world; the upper rows see nothing."""
    v, u = np.mgrid[:30, :40]
    rays = np.stack(
        [(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones(u.shape)], -1
    )
    slope = rays @ world_from_cam[2, :3]
    depth = np.where(slope < -0.05, -world_from_cam[2, 3] / np.minimum(slope, -0.05), np.nan)
    pointmap = (rays * depth[..., None]).astype(np.float32)
    known = np.isfinite(pointmap).all(axis=-1)
    rgb = np.random.default_rng(number).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    return Keyframe(
        id=number,
        frame_id=10 * number,
        stamp_ns=STAMP + number * 10**9,
        world_from_cam=world_from_cam,
        camera=CAMERA,
        pointmap=pointmap,
        confidence=np.where(known, 0.9, 0.0).astype(np.float32),
        rgb=rgb,
    )


def track_frame(keyframe_id: int) -> TrackFrame:
    labels = np.zeros((30, 40), np.uint16)
    labels[5:12, 8:20] = 3
    track = Track(
        id=3,
        label="red box",
        score=0.75,
        box_px=(8, 5, 20, 12),
        area_px=84,
        age_frames=1,
        state=TrackState.CONFIRMED,
    )
    return TrackFrame(
        frame_id=10 * keyframe_id,
        keyframe_id=keyframe_id,
        stamp_ns=STAMP,
        labels=labels,
        tracks=(track,),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Keyframes 0 to 3; 1 was first placed wrongly and then moved, 2 was taken back."""
    folder = tmp_path_factory.mktemp("run")
    bag = BagWriter(folder / "bag", StorageConfig(reserve_mib=1))
    for topic in (topics.KEYFRAME, topics.TRACKS, topics.PATH):
        kind = type_name(topic.adapter.ros_type)
        bag.add_topic("/" + topic.name, kind, message_definition(kind, share_folders()), "")
    filmed = [keyframe(n, pose(7 if n == 1 else n)) for n in range(4)]
    events = [NewKeyframe(replace(k, world_from_cam=pose(k.id))) for k in filmed]
    events += [MovedKeyframes({1: pose(7)}), RemovedKeyframes((2,))]
    items = [(topics.KEYFRAME, event) for event in events] + [(topics.TRACKS, track_frame(3))]
    stamps = np.array([STAMP + n * 10**8 for n in range(12)])
    items.append((topics.PATH, StampedPoses(stamps, np.array([pose(n) for n in range(12)]))))
    for at, (topic, item) in enumerate(items):
        for cdr in topic.adapter.dump(item):
            bag.write("/" + topic.name, cdr, STAMP + at, STAMP + at)
    bag.close()
    write_ply(folder / "mesh.ply", TETRAHEDRON)
    return folder


def test_keyframes_are_read_at_their_last_pose_and_without_those_taken_back(run):
    recorded = RecordedRun(run)
    assert [k.id for k in recorded.keyframes] == [0, 1, 3]
    assert np.allclose(recorded.keyframes[1].world_from_cam, pose(7))
    original = keyframe(0, pose(0))
    assert np.array_equal(recorded.keyframes[0].rgb, original.rgb)
    assert np.array_equal(recorded.keyframes[0].pointmap, original.pointmap, equal_nan=True)


@pytest.mark.parametrize("format", ["colmap", "colmap-text"])
def test_colmap_sees_the_cameras_where_they_were_and_projects_points_to_their_pixels(
    run, tmp_path, format
):
    model = export(run, format, tmp_path)
    reconstruction = pycolmap.Reconstruction(str(model))
    images = {image.name: image for image in reconstruction.images.values()}
    assert sorted(images) == [f"keyframe_{n:06d}.png" for n in (0, 1, 3)]
    for number, at in ((0, 0), (1, 7), (3, 3)):
        image = images[f"keyframe_{number:06d}.png"]
        cam_from_world = np.asarray(image.cam_from_world().matrix())
        assert np.allclose(cam_from_world, inverse(pose(at))[:3], atol=1e-6)
        camera = reconstruction.cameras[image.camera_id]
        point = keyframe(number, pose(at)).pointmap[25, 11].astype(float)
        assert np.allclose(camera.img_from_cam(point), (11.5, 25.5), atol=1e-3)
        stored = cv2.cvtColor(cv2.imread(str(tmp_path / "images" / image.name)), cv2.COLOR_BGR2RGB)
        assert np.array_equal(stored, keyframe(number, pose(at)).rgb)
    heights = np.array([point.xyz[2] for point in reconstruction.points3D.values()])
    assert len(heights) > 500
    assert np.abs(heights).max() < 1e-4


def test_nerfstudio_gets_opengl_cameras_that_look_along_minus_z(run, tmp_path):
    document = json.loads(export(run, "nerfstudio", tmp_path).read_text())
    frame = document["frames"][0]
    gl_from_world = np.linalg.inv(np.array(frame["transform_matrix"]))
    original = keyframe(0, pose(0))
    world = transform(pose(0), original.pointmap[25, 11][None].astype(float))[0]
    x, y, z = (gl_from_world @ np.append(world, 1.0))[:3]
    assert z < 0
    u = frame["fl_x"] * x / -z + frame["cx"]
    v = frame["fl_y"] * -y / -z + frame["cy"]
    assert (u, v) == pytest.approx((11.5, 25.5), abs=1e-3)
    depth = cv2.imread(str(tmp_path / frame["depth_file_path"]), cv2.IMREAD_UNCHANGED)
    unit = document["depth_unit_scale_factor"]
    assert depth[25, 11] * unit == pytest.approx(original.pointmap[25, 11, 2], abs=unit)
    assert depth[0, 0] == 0
    assert (tmp_path / document["ply_file_path"]).is_file()


def test_evo_reads_the_path_as_tum_and_as_kitti(run, tmp_path):
    tum = file_interface.read_tum_trajectory_file(str(export(run, "tum", tmp_path / "tum")))
    assert np.allclose(tum.poses_se3, [pose(n) for n in range(12)], atol=1e-6)
    kitti = file_interface.read_kitti_poses_file(str(export(run, "kitti", tmp_path / "kitti")))
    first = inverse(pose(0))
    assert np.allclose(kitti.poses_se3, [first @ pose(n) for n in range(12)], atol=1e-6)
    times = np.loadtxt(tmp_path / "kitti" / "times.txt")
    assert np.allclose(times, 0.1 * np.arange(12), atol=1e-6)


@pytest.mark.parametrize("format", ["ply", "glb", "obj"])
def test_trimesh_reads_the_surface_and_its_colours(run, tmp_path, format):
    mesh = trimesh.load(export(run, format, tmp_path), force="mesh", process=False)
    turned = TETRAHEDRON.vertices
    if format == "glb":
        turned = turned * np.array([1.0, -1.0, -1.0], np.float32)  # the bag is of a scene
    assert np.allclose(mesh.vertices, turned, atol=1e-5)
    assert mesh.volume == pytest.approx(1 / 3, rel=1e-5)
    if format != "glb":  # linear there, checked where it is written
        assert np.abs(mesh.visual.vertex_colors[:, :3].astype(int) - TETRAHEDRON.colours).max() <= 1


@pytest.mark.parametrize("format", ["ply", "obj", "glb"])
def test_open3d_reads_the_same_surface_with_a_colour_at_each_vertex(run, tmp_path, format):
    open3d = pytest.importorskip("open3d", reason="open3d is not installed here")
    mesh = open3d.io.read_triangle_mesh(str(export(run, format, tmp_path)))
    turned, colours = TETRAHEDRON.vertices, TETRAHEDRON.colours / 255.0
    if format == "glb":
        turned = turned * np.array([1.0, -1.0, -1.0], np.float32)  # the bag is of a scene
        colours = linear_from_srgb(TETRAHEDRON.colours)
    assert len(mesh.triangles) == 4
    assert mesh.has_vertex_colors()
    vertices, found = np.asarray(mesh.vertices), np.asarray(mesh.vertex_colors)
    nearest = [int(np.linalg.norm(turned - v, axis=1).argmin()) for v in vertices]
    assert np.allclose(vertices, turned[nearest], atol=1e-5)
    assert np.allclose(found, colours[nearest], atol=1 / 254)


def test_the_video_comes_out_as_it_was_received_and_opencv_decodes_it(run, tmp_path, encoded_video):
    session = VideoSession(tmp_path / "run" / "video", StorageConfig(reserve_mib=1))
    for unit in encoded_video(24):
        session.write(unit)
    session.close()
    shutil.copytree(run / "bag", tmp_path / "run" / "bag")
    video = export(tmp_path / "run", "mp4", tmp_path / "out.mp4")
    assert video.read_bytes() == session.videos[0].read_bytes()
    capture = cv2.VideoCapture(str(video))
    pictures = 0
    while capture.read()[0]:
        pictures += 1
    assert pictures == 24


def test_clouds_lie_on_the_ground_that_was_seen(run, tmp_path):
    points = PlyData.read(str(export(run, "points", tmp_path)))["vertex"]
    assert len(points) > 1000
    assert np.abs(points["z"]).max() < 1e-4
    las = laspy.read(export(run, "las", tmp_path))
    assert np.abs(np.asarray(las.z)).max() < 2e-3
    assert len(las.x) == len(points)
    assert np.allclose(np.sort(las.x), np.sort(points["x"]), atol=1e-3)
    assert int(np.asarray(las.red).max()) > 255


def test_gaussians_lie_in_the_ground_that_was_seen_and_close_it(run, tmp_path):
    vertex = PlyData.read(str(export(run, "3dgs", tmp_path)))["vertex"]
    assert np.abs(vertex["z"]).max() < 1e-3
    scales = np.exp(np.stack([vertex[f"scale_{i}"] for i in range(3)], axis=-1))
    assert np.all(scales[:, 2] < 0.2 * scales[:, :2].min(axis=1))  # flat
    assert 1e-3 < np.median(scales[:, 0]) < 0.2
    turn = np.stack([vertex[f"rot_{i}"] for i in range(4)], axis=-1)
    assert np.allclose(np.linalg.norm(turn, axis=1), 1.0)
    colour = 0.5 + 0.28209479177387814 * np.asarray(vertex["f_dc_0"])
    assert -1e-6 < colour.min() < 0.1
    assert 0.9 < colour.max() < 1.0 + 1e-6
    assert len(read_spz(export(run, "spz", tmp_path))) == len(vertex)


def test_cocotools_decodes_the_masks(run, tmp_path):
    coco = COCO(str(export(run, "coco", tmp_path)))
    (annotation,) = coco.loadAnns(coco.getAnnIds())
    mask = coco.annToMask(annotation)
    assert np.array_equal(mask, (track_frame(3).labels == 3).astype(np.uint8))
    assert annotation["bbox"] == [8, 5, 12, 7]
    assert coco.loadCats(annotation["category_id"])[0]["name"] == "red box"
    (image,) = coco.loadImgs(coco.getImgIds())
    assert cv2.imread(str(tmp_path / image["file_name"])).shape == (30, 40, 3)


def test_what_a_run_lacks_is_said(run, tmp_path):
    with pytest.raises(StorageError, match="no video"):
        export(run, "mp4", tmp_path)
    with pytest.raises(StorageError, match=r"choose one of: colmap.*coco"):
        export(run, "docx", tmp_path)
    with pytest.raises(StorageError, match="holds no recording; run without --no-record"):
        export(tmp_path, "tum", tmp_path / "out")
    with pytest.raises(StorageError, match="nowhere is not there"):
        export(tmp_path / "nowhere", "points", tmp_path / "out")
    (tmp_path / "letter.mcap").write_text("dear")
    with pytest.raises(StorageError, match="bag recover"):
        export(tmp_path / "letter.mcap", "tum", tmp_path / "out")
    empty = tmp_path / "empty"
    BagWriter(empty / "bag", StorageConfig(reserve_mib=1)).close()
    for name in FORMATS:
        with pytest.raises(StorageError):
            export(empty, name, tmp_path / name)


def test_the_command_lists_formats_and_writes_beside_the_run(run, capsys):
    from worldsystem.cli import main

    assert main(["export"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in FORMATS)
    assert main(["export", os.fspath(run), "--to", "tum"]) == 0
    assert (run / "export" / "tum" / "trajectory.tum").is_file()
    assert main(["export", os.fspath(run), "--to", "nothing"]) == 2


def test_the_surface_can_have_fewer_faces_and_a_texture_made_of_keyframes(run, tmp_path, capsys):
    from worldsystem.cli import main

    side = np.linspace(-1.0, 2.0, 31)
    x, y = np.meshgrid(side, side)
    at = np.arange(31 * 31).reshape(31, 31)
    a, b, c, d = at[:-1, :-1], at[:-1, 1:], at[1:, :-1], at[1:, 1:]
    faces = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (b, d, c))])
    ground = np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3).astype(np.float32)
    grey = np.full(ground.shape, 90, np.uint8)
    shutil.copytree(run, tmp_path / "run")
    write_ply(
        tmp_path / "run" / "mesh.ply",
        Mesh(vertices=ground, colours=grey, faces=faces.astype(np.int32)),
    )
    command = ["export", str(tmp_path / "run"), "--to", "glb"]
    assert main([*command, "--texture", "--out", str(tmp_path / "textured.glb")]) == 0
    (part,) = trimesh.load_scene(tmp_path / "textured.glb").geometry.values()
    assert len(part.faces) == len(faces)
    picture = np.asarray(part.visual.material.baseColorTexture.convert("RGB"), np.float64)
    assert picture.std() > 30.0, "the keyframes are noise, so their texture is"
    assert main([*command, "--faces", "200", "--out", str(tmp_path / "few.glb")]) == 0
    (part,) = trimesh.load_scene(tmp_path / "few.glb").geometry.values()
    assert 0 < len(part.faces) <= 210
    assert main(["export", str(tmp_path / "run"), "--to", "las", "--texture"]) == 2
    assert "--texture are for ply, obj, glb" in capsys.readouterr().err


def test_points_told_before_the_scale_was_known_are_exported_in_metres(tmp_path):
    bag = BagWriter(tmp_path / "bag", StorageConfig(reserve_mib=1))
    kind = type_name(topics.KEYFRAME.adapter.ros_type)
    name = "/" + topics.KEYFRAME.name
    bag.add_topic(name, kind, message_definition(kind, share_folders()), "")
    told = keyframe(0, pose(0))
    further = MovedKeyframes({0: pose(1)}, point_scale={0: 2.5}, scale=ScaleState.METRIC)
    nearer = MovedKeyframes({0: pose(2)}, point_scale={0: 2.0}, scale=ScaleState.METRIC)
    for at, event in enumerate((NewKeyframe(told), further, nearer)):
        for cdr in topics.KEYFRAME.adapter.dump(event):
            bag.write(name, cdr, STAMP + at, STAMP + at)
    bag.close()
    run = RecordedRun(tmp_path)
    (found,) = run.keyframes
    assert run.metric
    np.testing.assert_allclose(found.world_from_cam, pose(2), atol=1e-9)
    np.testing.assert_allclose(found.pointmap, 2.0 * told.pointmap, rtol=1e-5)


def record_keyframes(bag_folder: Path, events: list, first_ns: int) -> None:
    """A recorder's bag of `events`, a nanosecond from one to the next."""
    bag = BagWriter(bag_folder, StorageConfig(reserve_mib=1))
    kind = type_name(topics.KEYFRAME.adapter.ros_type)
    name = "/" + topics.KEYFRAME.name
    bag.add_topic(name, kind, message_definition(kind, share_folders()), "")
    for at, event in enumerate(events, first_ns):
        for cdr in topics.KEYFRAME.adapter.dump(event):
            bag.write(name, cdr, at, at)
    bag.close()


def test_a_run_whose_recorder_was_begun_anew_is_exported_as_a_whole(tmp_path):
    parts = {
        "bag": [NewKeyframe(keyframe(number, pose(number))) for number in range(3)],
        "bag_2": [NewKeyframe(keyframe(3, pose(3))), MovedKeyframes({1: pose(7), 3: pose(4)})],
        "bag_9": [RemovedKeyframes((2,)), MovedKeyframes({0: pose(5)})],
        "bag_10": [MovedKeyframes({0: pose(6)})],
    }
    for part, (name, events) in enumerate(parts.items()):
        record_keyframes(tmp_path / name, events, STAMP + 1000 * part)
    (tmp_path / "bag_11").mkdir()  # of a recorder that ended before it had a file
    keyframes = RecordedRun(tmp_path).keyframes
    assert [k.id for k in keyframes] == [0, 1, 3]
    found = [k.world_from_cam for k in keyframes]
    np.testing.assert_allclose(found, [pose(6), pose(7), pose(4)], atol=1e-9)
    assert [k.id for k in RecordedRun(tmp_path / "bag").keyframes] == [0, 1, 2]
    second = tmp_path / "bag_2" / "bag_2_0.mcap"
    second.write_bytes(second.read_bytes()[:-20])
    with pytest.raises(StorageError, match=r"bag_2 cannot be read as a bag.*bag recover"):
        _ = RecordedRun(tmp_path).keyframes


@pytest.mark.parametrize("format", ["ply", "glb", "obj", "tum", "kitti"])
def test_a_run_that_was_not_recorded_leaves_as_what_it_left(run, tmp_path, format):
    shutil.copy(run / "mesh.ply", tmp_path)
    path = StampedPoses(np.array([STAMP, STAMP + 10**9]), np.array([pose(0), pose(1)]))
    write_tum(tmp_path / "trajectory.tum", path)
    assert export(tmp_path, format, tmp_path / "out").stat().st_size
    with pytest.raises(StorageError, match="holds no recording; run without --no-record"):
        export(tmp_path, "points", tmp_path / "points.ply")
    with pytest.raises(StorageError, match="holds no video; run without --no-record"):
        export(tmp_path, "mp4", tmp_path / "video.mp4")


def test_the_path_that_a_run_left_goes_before_that_in_its_bag(run, tmp_path):
    shutil.copytree(run / "bag", tmp_path / "bag")
    left = StampedPoses(np.array([STAMP]), np.array([pose(5)]))
    write_tum(tmp_path / "trajectory.tum", left)
    tum = file_interface.read_tum_trajectory_file(str(export(tmp_path, "tum", tmp_path / "out")))
    assert np.allclose(tum.poses_se3, [pose(5)], atol=1e-6)
