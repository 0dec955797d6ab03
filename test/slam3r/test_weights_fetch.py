# SPDX-License-Identifier: Apache-2.0
"""Fetching weights from a server on this machine that can break, lie and resume."""

from __future__ import annotations

import hashlib
import importlib.util
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from worldsystem_core.errors import FetchError, WeightsMissing
from worldsystem_slam3r.da3.variants import VARIANTS, choose, find_da3
from worldsystem_slam3r.fetch import Wanted, fetch
from worldsystem_slam3r.published import PublishedFile

CONTENT = np.random.default_rng(0).bytes(3_000_000)


class Shelf(ThreadingHTTPServer):
    """Serves CONTENT; `breaks_after` cuts the next answer, `resumes` says whether ranges work.

    `tells_length` says whether it tells how much is coming. A `page` is given to all who ask.
    """

    breaks_after: int | None = None
    resumes = True
    tells_length = True
    page: bytes | None = None
    asked_from: list[int]
    asked_for: list[str]


class Clerk(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        shelf = self.server
        first = int(self.headers.get("Range", "bytes=0-")[6:-1])
        shelf.asked_from.append(first)
        shelf.asked_for.append(self.path)
        if shelf.page is not None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(shelf.page)))
            self.end_headers()
            self.wfile.write(shelf.page)
            return
        if first >= len(CONTENT) and shelf.resumes:
            self.send_error(416)
            return
        if "missing" in self.path:
            self.send_error(404)
            return
        first = first if shelf.resumes else 0
        self.send_response(206 if first else 200)
        if shelf.tells_length:
            self.send_header("Content-Length", str(len(CONTENT) - first))
        self.end_headers()
        end = len(CONTENT) if shelf.breaks_after is None else shelf.breaks_after
        shelf.breaks_after = None
        self.wfile.write(CONTENT[first:end])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with Shelf(("127.0.0.1", 0), Clerk) as server:
        server.asked_from, server.asked_for = [], []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def wanted(shelf: Shelf, name: str = "model.safetensors", content: bytes = CONTENT) -> Wanted:
    url = f"http://127.0.0.1:{shelf.server_address[1]}/{name}"
    return Wanted(url, len(content), hashlib.sha256(content).hexdigest())


def test_a_file_arrives_whole_and_progress_is_told(shelf: Shelf, tmp_path: Path) -> None:
    told: list[int] = []
    target = tmp_path / "deep" / "model.safetensors"
    assert fetch(wanted(shelf), target, on_progress=lambda done, total: told.append(done))
    assert target.read_bytes() == CONTENT
    assert told == sorted(told)
    assert told[-1] == len(CONTENT)
    assert [path.name for path in target.parent.iterdir()] == ["model.safetensors"]


def test_a_file_that_is_there_is_not_fetched_again(shelf: Shelf, tmp_path: Path) -> None:
    target = tmp_path / "model.safetensors"
    target.write_bytes(CONTENT)
    assert not fetch(wanted(shelf), target)
    assert shelf.asked_from == []


@pytest.mark.parametrize("resumes", [True, False])
def test_a_broken_transfer_goes_on_where_it_ended(
    shelf: Shelf, tmp_path: Path, resumes: bool
) -> None:
    target = tmp_path / "model.safetensors"
    shelf.breaks_after, shelf.resumes = 2_000_000, resumes
    with pytest.raises(FetchError, match=r"broke off after \d+ of 3000000 bytes.*again"):
        fetch(wanted(shelf), target)
    assert not target.exists()
    kept = (tmp_path / "model.safetensors.part").stat().st_size
    assert 0 < kept <= 2_000_000
    assert fetch(wanted(shelf), target)
    assert shelf.asked_from == [0, kept]
    assert target.read_bytes() == CONTENT


def test_other_content_is_refused_and_removed(shelf: Shelf, tmp_path: Path) -> None:
    other = bytes(len(CONTENT))
    with pytest.raises(FetchError, match=r"expected 3000000 bytes with sha256"):
        fetch(wanted(shelf, content=other), tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_longer_file_is_refused_without_reading_it_all(shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="expected 1000 bytes"):
        fetch(wanted(shelf, content=CONTENT[:1000]), tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_an_answer_of_another_length_leaves_what_was_fetched(shelf: Shelf, tmp_path: Path) -> None:
    """A network that wants a login answers with a page; a file that was replaced is longer."""
    target, part = tmp_path / "model.safetensors", tmp_path / "model.safetensors.part"
    part.write_bytes(CONTENT[:2_000_000])
    shelf.page = b"<html>log in first</html>"
    with pytest.raises(FetchError, match=r"of 25 bytes, expected 3000000 bytes.* is kept"):
        fetch(wanted(shelf), target)
    shelf.page = None
    with pytest.raises(FetchError, match="of 3000000 bytes, expected 2500000 bytes"):
        fetch(wanted(shelf, content=CONTENT[:2_500_000]), target)
    assert part.read_bytes() == CONTENT[:2_000_000]
    assert fetch(wanted(shelf), target)
    assert shelf.asked_from == 3 * [2_000_000]
    assert target.read_bytes() == CONTENT


def test_a_damaged_file_at_the_target_is_replaced(shelf: Shelf, tmp_path: Path) -> None:
    target = tmp_path / "model.safetensors"
    target.write_bytes(b"\0" + CONTENT[1:])
    assert fetch(wanted(shelf), target)
    assert target.read_bytes() == CONTENT


def test_an_absent_file_and_an_absent_server_are_errors_with_the_address(
    shelf: Shelf, tmp_path: Path
) -> None:
    with pytest.raises(FetchError, match="404"):
        fetch(wanted(shelf, "missing"), tmp_path / "a")
    nowhere = Wanted("http://127.0.0.1:9/nothing", 1, "0")
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:9/nothing"):
        fetch(nowhere, tmp_path / "b", timeout_s=2)


@pytest.mark.parametrize("resumes", [True, False])
def test_a_file_of_unknown_size_is_whole_when_it_is_as_long_as_the_server_says(
    shelf: Shelf, tmp_path: Path, resumes: bool
) -> None:
    target = tmp_path / "model.safetensors"
    unknown = Wanted(wanted(shelf).url)
    shelf.breaks_after, shelf.resumes = 2_000_000, resumes
    with pytest.raises(FetchError, match=r"broke off after \d+ bytes.*again"):
        fetch(unknown, target)
    assert not target.exists()
    told: list[int] = []
    assert fetch(unknown, target, on_progress=lambda done, total: told.append(total))
    assert set(told) == {len(CONTENT)}
    assert target.read_bytes() == CONTENT
    assert not fetch(unknown, target)
    assert len(shelf.asked_from) == 2


@pytest.mark.parametrize("excess", [0, 5])
def test_a_part_that_leaves_nothing_to_ask_for_is_fetched_anew(
    shelf: Shelf, tmp_path: Path, excess: int
) -> None:
    (tmp_path / "model.safetensors.part").write_bytes(bytes(len(CONTENT) + excess))
    assert fetch(Wanted(wanted(shelf).url), tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").read_bytes() == CONTENT
    assert shelf.asked_from == [len(CONTENT) + excess, 0]


def test_a_server_that_tells_no_length_is_not_trusted(shelf: Shelf, tmp_path: Path) -> None:
    shelf.tells_length = False
    with pytest.raises(FetchError, match=r"does not say how long.*--origin"):
        fetch(Wanted(wanted(shelf).url), tmp_path / "a")
    assert fetch(wanted(shelf), tmp_path / "b")


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
    ids=["another protocol", "a power of two", "5000 digits", "cut in a chunk"],
)
@pytest.mark.parametrize("size", [None, 8])
def test_what_is_no_whole_http_is_an_error_with_the_address(
    tmp_path: Path, said: bytes, size: int | None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_say_once, args=(listener, said))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/weights"
        with pytest.raises(FetchError, match=url):
            fetch(Wanted(url, size), tmp_path / "weights")
        thread.join(5.0)
    assert not (tmp_path / "weights").exists()


def _say_once(listener: socket.socket, said: bytes) -> None:
    client, _ = listener.accept()
    with client:
        client.recv(65_536)
        client.sendall(said)


@pytest.fixture
def weights_tool(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> object:
    """tools/weights.py with files that the shelf has."""
    path = Path(__file__).parents[2] / "tools" / "weights.py"
    spec = importlib.util.spec_from_file_location("weights_tool", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    request = wanted(shelf)
    files = [
        PublishedFile(name, request.url, request.size_bytes, request.sha256)
        for name in ("slam3r_i2p", "slam3r_l2w")
    ]
    monkeypatch.setattr(tool, "PUBLISHED_FILES", files)
    return tool


def test_make_weights_fetches_only_after_the_licence_was_accepted(
    shelf: Shelf, tmp_path: Path, weights_tool: object, capsys: pytest.CaptureFixture
) -> None:
    assert weights_tool.main(["--folder", str(tmp_path)]) == 1
    assert "CC BY-NC-SA 4.0" in capsys.readouterr().out
    assert shelf.asked_from == []
    assert weights_tool.main(["--folder", str(tmp_path), "--accept-licence"]) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["slam3r_i2p.safetensors", "slam3r_l2w.safetensors"]
    assert f"WORLDSYSTEM_WEIGHTS={tmp_path}" in capsys.readouterr().out


def test_make_weights_says_what_went_wrong(
    tmp_path: Path, weights_tool: object, capsys: pytest.CaptureFixture
) -> None:
    options = ["--folder", str(tmp_path), "--accept-licence", "--origin", "http://127.0.0.1:9/"]
    assert weights_tool.main(options) == 1
    assert "127.0.0.1:9/slam3r_i2p.safetensors" in capsys.readouterr().err


def test_make_weights_puts_depth_anything_3_where_it_is_looked_for(
    shelf: Shelf, tmp_path: Path, weights_tool: object, capsys: pytest.CaptureFixture
) -> None:
    origin = f"http://127.0.0.1:{shelf.server_address[1]}"
    options = ["--folder", str(tmp_path), "--origin", origin, "--da3", "base"]
    assert weights_tool.main(options) == 0
    assert shelf.asked_for == ["/da3/base/model.safetensors"]
    (found,) = find_da3(str(tmp_path))
    assert found.variant.name == "base"
    assert found.path.read_bytes() == CONTENT
    said = capsys.readouterr().out
    assert "Apache-2.0" in said
    assert hashlib.sha256(CONTENT).hexdigest() in said
    assert weights_tool.main(options) == 0
    assert len(shelf.asked_for) == 1


@pytest.mark.parametrize("name", ["large", "giant", "nested"])
def test_the_non_commercial_networks_of_depth_anything_3_need_agreement(
    shelf: Shelf, tmp_path: Path, weights_tool: object, capsys: pytest.CaptureFixture, name: str
) -> None:
    origin = f"http://127.0.0.1:{shelf.server_address[1]}"
    options = ["--folder", str(tmp_path), "--origin", origin, "--da3", name]
    assert weights_tool.main(options) == 1
    said = capsys.readouterr().out
    assert "CC BY-NC 4.0" in said
    assert f'ARGS="--da3 {name} --accept-licence"' in said
    assert shelf.asked_for == []
    assert weights_tool.main([*options, "--accept-licence"]) == 0
    assert [found.variant.name for found in find_da3(str(tmp_path))] == [name]


def test_a_checksum_that_the_user_knows_is_checked(
    shelf: Shelf, tmp_path: Path, weights_tool: object, capsys: pytest.CaptureFixture
) -> None:
    origin = f"http://127.0.0.1:{shelf.server_address[1]}"
    options = ["--folder", str(tmp_path), "--origin", origin, "--da3", "small", "--sha256"]
    assert weights_tool.main([*options, "0" * 64]) == 1
    assert f"expected 3000000 bytes with sha256 {'0' * 64}" in capsys.readouterr().err
    assert find_da3(str(tmp_path)) == []
    assert weights_tool.main([*options, hashlib.sha256(CONTENT).hexdigest()]) == 0
    assert "fetched and checked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["--da3", "tiny"], "nested"),
        (["--da3", "small", "--sha256", "abc"], "'abc' is no sha256: 64 digits"),
        (["--sha256", "0" * 64], "--sha256 is for --da3"),
    ],
)
def test_make_weights_refuses_what_it_does_not_know(
    weights_tool: object, capsys: pytest.CaptureFixture, options: list[str], answer: str
) -> None:
    with pytest.raises(SystemExit):
        weights_tool.main(options)
    assert answer in capsys.readouterr().err


def test_each_network_of_depth_anything_3_has_its_published_address(weights_tool: object) -> None:
    for variant in VARIANTS.values():
        url = weights_tool.da3_file(variant).url
        assert url.startswith("https://")
        assert url.endswith(f"/depth-anything/{variant.published}/resolve/main/model.safetensors")


@pytest.mark.parametrize(("asked", "named"), [("auto", "base"), ("giant", "giant")])
def test_a_missing_network_says_how_to_fetch_it(tmp_path: Path, asked: str, named: str) -> None:
    with pytest.raises(WeightsMissing, match=f'make weights ARGS="--da3 {named}"'):
        choose(asked, find_da3(str(tmp_path)), None, tmp_path)
