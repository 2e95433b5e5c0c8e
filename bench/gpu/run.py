"""All parts in order, each in a process of its own, within the minutes given."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from bench.gpu.plan import Part, refusal, share, stop_after
from bench.gpu.records import Gap, Row, from_message
from bench.gpu.results import Results

_LAST_WORDS = 300


def run(parts: Sequence[Part], results: Results, device: str, small: bool, minutes: float) -> None:
    """Measure the parts; every line is written as it comes.

    Args:
        parts: In the order of the run.
        results: Takes the lines.
        device: `cpu`, `cuda` or `cuda:N`.
        small: Small shapes.
        minutes: For all parts together.
    """
    ends = time.time() + 60 * minutes
    for number, part in enumerate(parts):
        left = ends - time.time()
        allowed = share(part, parts[number + 1 :], left)
        if reason := refusal(part, allowed, small):
            results.add(Gap(part.name, part.what, "left out", reason))
            continue
        print(f"{part.name}: {part.what} ({allowed:.0f} s)", flush=True)
        command = [sys.executable, "-m", "bench.gpu", "--child", part.name, "--device", device]
        command += ["--until", str(time.time() + allowed), *(["--small"] if small else [])]
        log = results.folder / f"{part.name}.log"
        for message in messages(command, stop_after(allowed, left), log):
            found = _gap(part, message) if "ended" in message else from_message(message)
            results.add(found)
            if isinstance(found, Row):
                print(f"  {found.what}: {found.rate:,.1f} {found.unit}/s; {found.note}", flush=True)
            elif isinstance(found, Gap):
                print(f"  {found.kind}: {found.reason}", flush=True)


def messages(command: Sequence[str], seconds: float, log: Path) -> Iterator[dict[str, Any]]:
    """JSON messages of a process, which is stopped with its own children when its time is over.

    Args:
        command: The process; each line of its standard output is a message.
        seconds: After which it is stopped.
        log: Takes its standard error.

    Yields:
        The messages, and `{"ended": reason}` where it did not end well.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},  # nothing is downloaded
        )
        assert process.stdout is not None
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
        ends = time.monotonic() + seconds
        try:
            while line := lines.get(timeout=max(0.01, ends - time.monotonic())):
                yield json.loads(line)
            status = process.wait(timeout=max(5.0, ends - time.monotonic()))
        except (queue.Empty, subprocess.TimeoutExpired):
            yield {"ended": f"stopped after {seconds:.0f} s; give more --minutes"}
            return
        finally:
            _stop(process)
            process.stdout.close()
    if status:
        how = f"ended with status {status}" if status > 0 else _killed(-status)
        yield {"ended": f"its process {how}: {_last_words(log)}"}


def _killed(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    full = " (mostly since the host's memory is full)" if number == signal.SIGKILL else ""
    return f"was ended by {name}{full}"


def _read(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    with contextlib.suppress(ValueError):  # closed while it was read
        for line in stream:
            lines.put(line)
    lines.put(None)


def _stop(process: subprocess.Popen[str]) -> None:
    """End a process and those that it started, a compiler's workers among them."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _gap(part: Part, message: dict[str, Any]) -> Gap:
    reason = str(message["ended"])
    kind = "left out" if reason.startswith("stopped") else "failed"
    return Gap(part.name, f"the rest of {part.what}", kind, reason)


def _last_words(log: Path) -> str:
    said = log.read_text(errors="replace").strip().splitlines()
    return said[-1][:_LAST_WORDS] if said else "it said nothing"
