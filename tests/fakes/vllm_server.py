"""A real vLLM server on the CPU, started and stopped by a test."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

START_SECONDS = 600  # 40-80 s on a quiet machine; imports in three processes dominate


@contextlib.contextmanager
def serving(
    python: str, checkpoint: Path, name: str, folder: Path, *options: str, context: int
) -> Iterator[str]:
    """Serve a checkpoint; gives the root of the API.

    Args:
        python: Interpreter that can import vllm.
        checkpoint: Directory of the model.
        name: What it is served as.
        folder: Where the log is written; the server's working directory.
        options: Further options of the server.
        context: Most tokens of prompt and answer together.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log_path = folder / "server.log"
    command = [
        *(python, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(checkpoint), "--served-model-name", name),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "float32", "--max-model-len", str(context)),
        # A seeded request whose prefill is split kills vLLM 0.32's CPU engine: never split it.
        *("--no-enable-chunked-prefill", "--max-num-batched-tokens", "8192"),
        # Compiling so small a model takes longer than all that is asked of it.
        "--enforce-eager",
        # Each process imports for ten seconds: the model lives in that of the engine.
        *("--distributed-executor-backend", "uni"),
        *options,
    ]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # or the executor would be another process
        # Bound threads of all servers would share the first core.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    # From another folder: the server's imports must not find this project's top-level packages.
    with log_path.open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder
        )
        try:
            _wait_until_healthy(server, port, log_path)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            try:
                server.wait(timeout=120)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait(timeout=120)


def _wait_until_healthy(server: subprocess.Popen[bytes], port: int, log_path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(1)
    tail = log_path.read_text(errors="replace")[-3000:]
    pytest.fail(f"vLLM did not become healthy (exit code {server.poll()}):\n{tail}")
