"""The wheel holds what `gategen build` needs: built, installed into an empty environment, and used there."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_an_installed_wheel_builds_the_gru_as_it_is_committed(tmp_path: Path) -> None:
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist", cwd=ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    run(python, "-m", "gategen", "build", "gru", "--out", "made", cwd=tmp_path)
    made = sorted((tmp_path / "made").iterdir())
    assert [file.name for file in made] == ["gru_cupy.cu", "gru_cupy.py", "gru_numpy.py"]
    for file in made:
        assert file.read_bytes() == (ROOT / "generated" / file.name).read_bytes()
    trained = "import made.gru_numpy as g, numpy as np; p = g.init(3, 4)"
    trained += "; y, _, t = g.forward(p, np.ones((2, 1, 3), 'f4'))"
    run(python, "-c", f"{trained}; g.backward(p, t, y)", cwd=tmp_path)
