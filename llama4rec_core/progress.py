"""Progress one can read in a log."""

import time

EVERY = 20.0  # seconds between two lines


class Progress:
    """Prints `what: 40/200 steps, 1.9/s, 84 s left` now and then, and at the end."""

    def __init__(self, what: str, total: int, done: int, unit: str):
        self.what, self.total, self.unit = what, total, unit
        self.begun_at = self.done = done
        self.started = self.printed = time.monotonic()

    def to(self, done: int, note: str = "") -> None:
        self.done, now = done, time.monotonic()
        if now - self.printed < EVERY and done < self.total:
            return
        self.printed = now
        rate = (done - self.begun_at) / max(now - self.started, 1e-9)
        left = f"{(self.total - done) / rate if rate else float('inf'):.0f} s left" if done < self.total else "done"
        parts = (f"{done}/{self.total} {self.unit}", f"{rate:.2g}/s", left, note)
        print(f"{self.what}: " + ", ".join(filter(None, parts)), flush=True)
