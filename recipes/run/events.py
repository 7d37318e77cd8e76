"""TensorBoard's file of events, written event by event: where one can't be written, whoever gave it is told."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["EventFile"]


class EventFile:
    """Scalars by step, in a new file of a folder that TensorBoard reads.

    Tensorboard's own writer has a thread, which prints the traceback of an error (a full disk) to stderr.

    Args:
        folder: made where it is not there.
        first_step: events from this step on in older files of the folder are taken back.

    Raises:
        ImportError: tensorboard is not installed.
        OSError: the file can't be written.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog

        folder.mkdir(exist_ok=True)
        # TensorBoard reads a folder's files in the order of their names.
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self.file = open(folder / name, "ab", buffering=0)  # noqa: SIM115 - closed by close()
        try:
            self._write(file_version="brain.Event:2")
            self._write(step=first_step, session_log=SessionLog(status=SessionLog.START))
        except OSError:
            self.close()
            raise

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Write the values of a step, all or none.

        Raises:
            OSError: they can't be written.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(step=step, summary=Summary(value=scalars))

    def _write(self, **parts: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(Event(wall_time=time.time(), **parts).SerializeToString())
        begin, left = self.file.tell(), record.getvalue()
        try:
            while left:
                left = left[self.file.write(left) :]
        except OSError:
            self.file.truncate(begin)
            raise

    def close(self) -> None:
        """Close the file."""
        self.file.close()
