# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a choice as far as it shows before any stage is made: those take seconds."""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name

from worldsystem.graph import SIMULATOR, Choice, is_served, simulator_parameters, stages
from worldsystem_core.config import config_from, own_settings
from worldsystem_core.errors import ConfigError
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.source import check_address
from worldsystem_slam3r.backend import check_name


def check(choice: Choice, *, composed: bool = True) -> None:
    """Raise the `WorldSystemError` with which a stage would end its start: for an unknown setting
    or one out of its limits, a back-end of no such name, or a source that is no address; and for
    ground truth that is not there, and another run's map where this one's is to be."""
    _check_text(choice)
    chosen = stages(choice, composed=composed)
    if choice.simulated:
        _check_server(choice)
        chosen.append((SIMULATOR, simulator_parameters(choice)))
    settings = {
        stage.name: config_from(resolve_name(stage.settings), own_settings(parameters))
        for stage, parameters in chosen
    }
    check_name(settings["slam3r"].backend)
    check_address(settings["ingest"].source)
    check_truth(choice, settings["reporter"].truth)
    if not composed:
        _check_map(choice)


def _check_text(choice: Choice) -> None:
    """Parameters, summary and report are text, which a name of other bytes cannot be in."""
    given = (value for settings in choice.extra.values() for value in settings.values())
    texts = (value for value in given if isinstance(value, str))
    for name in (choice.source, str(choice.out), *texts):
        try:
            name.encode()
        except UnicodeEncodeError as error:
            shown = name.encode(errors="replace").decode()
            raise ConfigError(f"{shown} is no name in UTF-8; rename it, or name a link") from error


def check_truth(choice: Choice, place: str) -> None:
    """Raise `ConfigError` when ground truth is to be at `place` and nothing is, and `SourceError`
    when a file is there that holds no trajectory.

    The simulator's, here or behind `server:`, may come with the flight.
    """
    if not place or choice.simulated or is_served(choice.source):
        return
    if Path(place).is_file():
        from worldsystem.evaluation.truth_files import load_truth_trajectory

        load_truth_trajectory(Path(place))
    elif not Path(place).exists():
        raise ConfigError(
            f"there is no ground truth at {place}; name a file or folder that is there"
        )


def _check_server(choice: Choice) -> None:
    """The simulator is told where to send to before the server has taken a port, and has neither
    a token nor the name that a certificate is for."""
    if "url" in choice.extra.get(SIMULATOR.name, {}):
        return
    ingest = choice.extra.get("ingest", {})
    port = ingest.get("port", IngestConfig.port)
    if port == 0:
        raise ConfigError(
            "ingest.port=0 is any free port, which the simulator would not know; choose one, as "
            "ingest.port=5002"
        )
    guards = [name for name in ("tls_certificate", "token_file") if ingest.get(name)]
    if guards:
        place = f"wss://NAME:{port}" if "tls_certificate" in guards else f"ws://127.0.0.1:{port}"
        token = "?token=TOKEN" if "token_file" in guards else ""
        raise ConfigError(
            f"the simulator does not get past {' and '.join(f'ingest.{name}' for name in guards)}; "
            f"tell it how, as --set 'simulator.url={place}{token}' (NAME: the certificate's, which "
            "SSL_CERT_FILE=cert.pem has trusted if it is one of your own)"
        )


def _check_map(choice: Choice) -> None:
    """Stages in processes of their own go on in the map that they find."""
    folder = choice.map_folder
    if "map" not in choice.extra.get("slam3r", {}) and folder.exists():
        raise ConfigError(
            f"{folder} is of another run; choose another --out, or go on in that map with "
            f"`--set slam3r.map={folder}`"
        )
