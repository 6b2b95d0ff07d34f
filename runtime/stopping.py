"""Signals that end a process become KeyboardInterrupt, so that what is half written is removed first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# What a scheduler sends, and what a terminal that is closed does. SIGINT is KeyboardInterrupt already.
SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Stop:
    """The handler of a block. `number` is the signal that came; the first one counts, so that nothing cuts off cleaning up."""

    number: int = signal.SIGINT
    _came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self._came:
            self._came, self.number = True, number
            raise KeyboardInterrupt

    @property
    def exit_code(self) -> int:
        """What a shell has for a process that the signal ended: 143 for SIGTERM, 130 for SIGINT, 129 for SIGHUP."""
        return 128 + self.number


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Turns SIGTERM and SIGHUP into KeyboardInterrupt while the block runs in the main thread.

    Signals that are ignored stay so: `nohup` sees to it. Within another such block it changes nothing.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    outer = next((handler for handler in before.values() if isinstance(handler, Stop)), None)
    if outer is not None:
        yield outer
        return
    mine = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in mine:
        signal.signal(number, stop)
    try:
        yield stop
    finally:
        for number in mine:
            signal.signal(number, before[number])
