"""The tutorial's notebook, from the first cell to the last. It ends by comparing its numbers with pyvene's."""

import pytest
from common import ROOT

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("plotnine", reason="plotnine is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")


def test_the_notebook_runs_to_its_end():
    notebook = nbformat.read(ROOT / "examples" / "activation_addition.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    ).execute()
    last = "".join(output.get("text", "") for output in notebook.cells[-1].outputs)
    assert "600 numbers and 3 lists agree with pyvene's" in last
    kinds = {kind for cell in notebook.cells for output in cell.get("outputs", []) for kind in output.get("data", {})}
    assert "image/svg+xml" in kinds, "the heat map and plotnine's figure show themselves"
