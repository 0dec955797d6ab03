# SPDX-License-Identifier: Apache-2.0
"""What the library rosbags raises where a bag is damaged: its own errors, and what lies below."""

from __future__ import annotations

import rosbags.rosbag1
import rosbags.rosbag2
from rosbags.highlevel import AnyReaderError
from rosbags.rosbag2.reader import zstd  # Python's own or its backport, as rosbags has it
from rosbags.rosbag2.storage_sqlite3 import apsw
from rosbags.serde import SerdeError
from rosbags.typesys import TypesysError

from worldsystem_core.mcap_reading.records import DAMAGE

BAG_DAMAGE = (
    AnyReaderError,
    rosbags.rosbag1.ReaderError,  # of single messages, as are the following
    rosbags.rosbag2.ReaderError,
    SerdeError,
    TypesysError,
    apsw.Error,
    zstd.ZstdError,
    *DAMAGE,
)
