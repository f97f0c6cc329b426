"""The tests of a GPU on a stand-in for one, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices written in Python",
)
def test_no_tensor_is_in_the_wrong_place() -> None:
    command = [sys.executable, "-m", "unittest", "tests.second_device.OnASecondDevice"]
    root = Path(__file__).resolve().parent.parent
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
