"""`examples/tour.ipynb` runs from top to bottom, and its layer learns to read digits.

    python tests/conformance/test_tour.py     runs it and keeps what it shows

Needs nbclient, ipykernel and what the notebook itself imports.
"""

import os
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
TOUR = ROOT / "examples" / "tour.ipynb"


def executed(folder: Path) -> nbformat.NotebookNode:
    """A copy that was run in this folder. Raises `nbclient.exceptions.CellExecutionError`."""
    notebook = nbformat.read(TOUR, as_version=4)
    metadata = dict(notebook.metadata)
    client = NotebookClient(
        notebook,
        timeout=600,  # seconds a cell
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute(env={**os.environ, **environment(folder)})
    notebook.metadata = metadata  # without the version of Python
    return notebook


def environment(folder: Path) -> dict[str, str]:
    """This checkout on one core, and nothing of what the user keeps at home."""
    return {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "IPYTHONDIR": str(folder / "ipython"),
        "GATEGEN_CACHE": str(folder / "cache"),
    }


def said(cell: nbformat.NotebookNode) -> str:
    """What a cell prints and shows, as text."""
    return "".join(o.text if o.output_type == "stream" else o.data["text/plain"] for o in cell.outputs)


def test_the_notebook_runs_and_its_layer_learns(tmp_path):
    notebook = executed(tmp_path)
    texts = {cell.id: said(cell) for cell in notebook.cells if cell.cell_type == "code"}
    assert texts["verify"].endswith("True")
    assert "same: True" in texts["torch"]
    assert float(re.search(r"right: ([\d.]+) %", texts["train"])[1]) > 90
    errors = [float(found) for found in re.findall(r"test error ([\d.]+) %", texts["compare"])]
    assert len(errors) == 3 and max(errors) < 10
    same, total = map(int, re.search(r"(\d+) of (\d+)", texts["onnx"]).groups())
    assert total - 2 <= same <= total == 1797  # where two scores are equal, rounding decides
    assert (tmp_path / "mgu_peephole.onnx").is_file()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as run_in:
        nbformat.write(executed(Path(run_in)), TOUR)
