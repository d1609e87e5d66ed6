"""Progress one can read in a log: a line now and then, with the rate and the time left. A bar where there is a
terminal."""

from __future__ import annotations

import time


class Progress:
    """Prints `what: 40/200 steps, 1.9 steps/s, 84 s left` every `every` seconds and at the end."""

    def __init__(self, what: str, total: int, done: int = 0, unit: str = "", every: float = 20.0):
        self.what, self.total, self.unit, self.every = what, total, unit, every
        self.begun_at, self.done = done, done
        self.started = self.printed = time.monotonic()

    def to(self, done: int, note: str = "") -> None:
        self.done, now = done, time.monotonic()
        if now - self.printed < self.every and done < self.total:
            return
        self.printed = now
        rate = (done - self.begun_at) / max(now - self.started, 1e-9)
        left = (self.total - done) / rate if rate else float("inf")
        parts = [
            f"{done}/{self.total} {self.unit}".strip(),
            f"{rate:.2g}/s",
            f"{left:.0f} s left" if done < self.total else "done",
            note,
        ]
        print(f"{self.what}: " + ", ".join(part for part in parts if part), flush=True)
