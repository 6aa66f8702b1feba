"""Tests run from the project's root, where examples in docstrings find their fixtures. With CAUSALCONE_TORCH=1 all of
them run with torch imported first, else with NumPy alone."""

import os
import sys
from pathlib import Path

import pytest

if os.environ.get("CAUSALCONE_TORCH") == "1":
    import torch  # noqa: F401

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.chdir(Path(__file__).resolve().parents[3])
