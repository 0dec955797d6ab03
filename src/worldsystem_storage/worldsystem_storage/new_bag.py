# SPDX-License-Identifier: Apache-2.0
"""Messages that are all there already, written to a new bag."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from worldsystem_storage.bag_file import BagFile
from worldsystem_storage.bag_metadata import Topic, write_metadata
from worldsystem_storage.errors import StorageError
from worldsystem_storage.mcap_contents import RawMessage


def write_new_bag(out: Path, messages: Iterable[RawMessage]) -> dict[str, int]:
    """Write `messages`, by time, to the new folder `out`; messages by topic.

    Raises `StorageError` when `out` exists or a topic has two types.
    """
    out = Path(out)
    if out.exists():
        raise StorageError(f"{out} exists already; choose another folder")
    out.mkdir(parents=True)
    file = BagFile(out / f"{out.resolve().name}_0.mcap")
    topics: dict[str, Topic] = {}
    try:
        for message in messages:
            known = topics.setdefault(message.topic.name, message.topic)
            if known.type_name != message.topic.type_name:
                raise StorageError(
                    f"topic {known.name} is {known.type_name} in one bag and "
                    f"{message.topic.type_name} in another; cut one of them with --topics first"
                )
            file.write(known, message.cdr, message.log_time_ns, message.publish_time_ns)
    except BaseException:
        file.abandon()
        raise
    file.close(list(topics.values()))
    write_metadata(out, list(topics.values()), [file.summary])
    return dict(file.summary.counts)
