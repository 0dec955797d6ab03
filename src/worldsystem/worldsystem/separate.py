# SPDX-License-Identifier: Apache-2.0
"""The supervised runner: every stage a process of its own, begun anew when it dies.

What came before survives: reconstruction and segmentation go on in the map that they keep saving;
mesher and splats keep what they have made of keyframes and are told where these lie now; the viewer
is told all keyframes again and asks for the surface; the recorder begins a further bag. The
reporter stays in this process and keeps the accounts of all lives. A file whose reader dies ends
the run: it would be played from its beginning, perhaps for ever. Shared memory that a killed
process left is freed. Spare processes have done the imports already and become the stages that die.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from worldsystem.app import App, started
from worldsystem.graph import Choice, Parameters, Stage, stages
from worldsystem.node import Sign
from worldsystem.simulator_process import SimulatorProcess
from worldsystem.spare_process import Spares
from worldsystem.stage_process import WRONG_SETTINGS, StageProcess
from worldsystem.supervision import STARTING_S, Action, StageWatch, chosen
from worldsystem_core.errors import WorldSystemError
from worldsystem_core.ros.node_thread import finish_all
from worldsystem_core.ros.process import installed_executable
from worldsystem_core.shown_url import without_secrets
from worldsystem_core.stale_segments import clean_stale_segments
from worldsystem_storage.bag_folder import free_folder
from worldsystem_viewer.config import ViewerConfig

log = logging.getLogger(__name__)

TICK_S = 0.1
REPORTER_S = 60.0
_AWAKE_S = 1.0
"""Who looks so rarely was itself stopped (Ctrl-Z, a suspended machine) and could hear nobody."""
_ARE_TOLD_AGAIN = ("mesher", "splats", "viewer", "segmenter")
_KEEP_AN_ARCHIVE = ("mesher", "splats")


class SeparateApp(App):
    """Runs a `Choice` with one process a stage; see `App`. Files are played at their own pace."""

    composed = False

    def __init__(self, choice: Choice, *, status: bool = True) -> None:
        super().__init__(replace(choice, realtime=True), status=status)
        self._settings = TemporaryDirectory(prefix="worldsystem-")
        self._processes: dict[str, StageProcess] = {}
        self._watches: dict[str, StageWatch] = {}
        self._chosen: dict[str, dict[str, object]] = {}
        self._spares = Spares()
        self._ends: dict[str, int] = {}
        self._state: TemporaryDirectory[str] | None = None
        self._looked_s = time.monotonic()
        self._broke_off = ""
        self._failed_ends: list[str] = []

    def _start(self) -> None:
        """The reporter here, then the others in the opposite order of the flow; the source last."""
        for stage, parameters in reversed(stages(self.choice, composed=False)):
            if stage.name == "reporter":
                self._threads.append(started(stage, parameters))
                self._threads[0].node.observer.delivered_by_reference = False
                continue
            if stage.name == "ingest":
                self._wait_until_heard()
            self._start_process(stage, parameters)
        self._wait_until_heard()
        if self.choice.simulated and not self._source_has_failed():
            self._simulator = SimulatorProcess(self.choice)

    def _start_process(self, stage: Stage, parameters: Parameters) -> None:
        executable = installed_executable(stage.package, stage.executable)
        if stage.name in _KEEP_AN_ARCHIVE:
            parameters = {"archive_dir": self._archive_of(stage)} | dict(parameters)
        process = StageProcess(stage, executable, parameters, Path(self._settings.name))
        process.start()
        self._processes[stage.name] = process
        self._watches[stage.name] = StageWatch(time.monotonic())

    def _archive_of(self, stage: Stage) -> str:
        """Where what the stage has made outlives it; beside the run's files, where there is room,
        and gone with the run."""
        if self._state is None:
            self._state = TemporaryDirectory(
                prefix="state-", dir=self.choice.out, ignore_cleanup_errors=True
            )
        return str(Path(self._state.name) / stage.name)

    def _wait_until_heard(self) -> None:
        self._looked_s = time.monotonic()
        deadline = self._looked_s + STARTING_S
        while not self._stop.wait(TICK_S):
            self._supervise()
            if self._broke_off or all(w.state == "running" for w in self._watches.values()):
                return
            if time.monotonic() > deadline:
                late = [name for name, w in self._watches.items() if w.state != "running"]
                raise WorldSystemError(
                    f"{', '.join(late)} did not start within {STARTING_S:.0f} s; "
                    "what they printed is above"
                )

    def _wait(self) -> None:
        reporter = self._node("reporter")
        first_frame_s = None
        while not self._stop.wait(TICK_S):
            now = time.monotonic()
            self._supervise()
            self._spares.keep(now)
            if first_frame_s is None and reporter.live.frames:
                first_frame_s = now
            self._line.show(reporter.live, self._simulator)
            if self._source_is_at_its_end() or self._threads[0].failure:
                return
            if first_frame_s is not None and now - first_frame_s > self._limit_s():
                return

    def _source_is_at_its_end(self) -> bool:
        """A source that failed tells so itself, however long a simulator would still fly."""
        sign = self._sign_of_the_source()
        if self._broke_off or (sign is not None and sign.facts.get("ended") == "True"):
            return True
        return self._simulator is not None and self._simulator.ended

    def _source_has_failed(self) -> bool:
        sign = self._sign_of_the_source()
        return sign is not None and sign.facts.get("failed") == "True"

    def _sign_of_the_source(self) -> Sign | None:
        sign: Sign | None = self._threads[0].node.signs.get("ingest")
        return sign

    def _where_the_source_broke(self) -> str:
        sign = self._sign_of_the_source()
        return self._broke_off or (sign.facts.get("broken", "") if sign is not None else "")

    def _raise_failure(self) -> None:
        super()._raise_failure()
        sign = self._sign_of_the_source()
        if sign is not None and self._source_has_failed():
            raise WorldSystemError(sign.message)
        if self._failed_ends:
            raise WorldSystemError(f"{'; '.join(self._failed_ends)}; what it printed is above")

    def _supervise(self) -> None:
        """Take every sign of life and of death, and do what is due."""
        reporter, now = self._node("reporter"), time.monotonic()
        asleep_s, self._looked_s = now - self._looked_s - _AWAKE_S, now
        for name, process in self._processes.items():
            watch, sign = self._watches[name], reporter.signs.get(name)
            watch.forgive(asleep_s)
            if sign is not None and sign.heard_s > watch.started_s:
                watch.heard(sign.heard_s)
            if process.exit_code is not None and watch.ended_s is None:
                self._note_end(name, process, watch, now)
            action = watch.due(now)
            if action is Action.KILL:
                log.error("%s gives no sign of life and is killed", name)
                process.kill()
                watch.killed(time.monotonic())
            elif action is Action.START and not (name == "ingest" and self._broke_off):
                self._begin_anew(name, process, watch)
        reporter.supervised = {
            **{f"state.{name}": watch.state for name, watch in self._watches.items()},
            **{f"restarts.{name}": watch.restarts for name, watch in self._watches.items()},
        }

    def _note_end(self, name: str, process: StageProcess, watch: StageWatch, now: float) -> None:
        code = process.exit_code
        if code == WRONG_SETTINGS and watch.heard_s is None and not watch.restarts:
            raise WorldSystemError(f"{name} cannot run so; what it printed is above")
        watch.ended(now, by_settings=code == WRONG_SETTINGS)
        self._node("reporter").observer.died(name)
        if name == "ingest" and self.choice.plays_once:
            shown = without_secrets(self.choice.source)
            self._broke_off = f"{shown} broke off: ingest ended ({_in_words(code)})."
            return
        text = f"{name} ended ({_in_words(code)}) and is begun anew."
        self._line.note(text)
        notes, times = self._node("reporter").notes, self._ends.get(text, 0) + 1
        if times == 1:
            notes.append(text)
        else:
            notes[notes.index(_counted(text, times - 1))] = _counted(text, times)
        self._ends[text] = times

    def _begin_anew(self, name: str, process: StageProcess, watch: StageWatch) -> None:
        self._node("reporter").observer.began_anew(name)
        clean_stale_segments()
        further = self._as_before(name)
        if name in _ARE_TOLD_AGAIN:
            further["restore"] = True
        # one that will hardly run is not worth a process that has done the imports
        spare = None if watch.waits_for_a_person else self._spares.take()
        try:
            if name == "recorder":
                further["name"] = self._free_bag()
            process.start(spare, **further)
        except OSError as error:
            log.warning("%s could not be begun anew: %s", name, error)
            if spare is not None:
                spare.end()
            watch.could_not_start(time.monotonic())
        else:
            watch.started(time.monotonic())

    def _as_before(self, name: str) -> dict[str, object]:
        """What the stage chose in its lives so far, as far as it told of it."""
        sign, kept = self._node("reporter").signs.get(name), self._chosen.setdefault(name, {})
        if sign is not None:
            kept |= chosen(name, sign.facts)
        return dict(kept)

    def _free_bag(self) -> str:
        """The name of a bag beside those that there are; empty where the time names them."""
        given = self.choice.extra.get("recorder", {})
        folder, name = given.get("folder", self.choice.out), str(given.get("name", "bag"))
        return free_folder(Path(str(folder)) / name).name if name else ""

    def _end(self) -> None:
        self._line.end()
        if self._simulator is not None:
            self._simulator.stop()
        self._let_signals_end_waiting_only()
        self._tell_how_the_source_ended()
        for process in self._in_order():
            if self._watches[process.stage.name].state == "running":
                if process.stage.name == "viewer":
                    self._linger(process)
                process.end()
                self._note_failed_end(process)
            else:
                process.kill()
        self._forget_states()  # and before the report tells what the folder holds
        finish_all(self._threads, REPORTER_S)
        self._close()

    def _note_failed_end(self, process: StageProcess) -> None:
        """Nobody begins it anew any more: the run has failed, and the report says so."""
        if process.exit_code == 0:
            return
        text = f"{process.stage.name} failed as it ended ({_in_words(process.exit_code)})"
        self._failed_ends.append(text)
        self._line.note(f"{text}.")
        self._node("reporter").notes.append(f"{text}; what it held back is lost.")

    def _linger(self, viewer: StageProcess) -> None:
        """Let pages that are open go on looking; the viewer itself ends at once when it is told."""
        given = self.choice.extra.get("viewer", {}).get("linger_s", ViewerConfig.linger_s)
        deadline, signs = time.monotonic() + float(str(given)), self._node("reporter").signs
        while time.monotonic() < deadline and viewer.exit_code is None:
            sign = signs.get("viewer")
            if self._stop.is_set() or sign is None or sign.facts.get("viewers", "0") == "0":
                return
            time.sleep(TICK_S)

    def _abandon(self) -> None:
        for process in self._in_order():
            process.kill()
        super()._abandon()

    def _close(self) -> None:
        self._spares.end()
        self._settings.cleanup()
        self._forget_states()
        super()._close()
        clean_stale_segments()  # of the last ones that were killed

    def _forget_states(self) -> None:
        """What a stage leaves for a process to come in its place."""
        if self._state is not None:
            self._state.cleanup()

    def _in_order(self) -> list[StageProcess]:
        """The processes in the order the data flows."""
        return [
            self._processes[stage.name]
            for stage, _ in stages(self.choice)
            if stage.name in self._processes
        ]


def _counted(text: str, times: int) -> str:
    return text if times == 1 else f"{text} ({times} times)"


def _in_words(exit_code: int | None) -> str:
    if exit_code is None:
        return "killed, and still there"
    if exit_code < 0:
        return f"signal {-exit_code}"
    return f"exit code {exit_code}"
