"""One GPU in a notebook, or none: docs/own_text.ipynb, as it stands and from top to bottom."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from journey import Journey

NOTEBOOK = Path("docs/own_text.ipynb")
TINY = """
VOCAB_SIZE, STEPS, EPOCHS = 500, 8, 1
PACKAGES = ["flax", "optax"]
"""


def read_notebook() -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return notebook


def test_no_output_of_a_notebook_is_committed() -> None:
    notebook = read_notebook()
    assert notebook["metadata"].keys() == {"kernelspec", "language_info"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"] and cell["execution_count"] is None, cell["id"]
            assert set(cell["metadata"]) <= {"tags"}, cell["id"]


def test_links_of_a_notebook_lead_to_pages() -> None:

    text = "".join("".join(cell["source"]) for cell in read_notebook()["cells"])
    links = re.findall(r"\]\(([^)]+\.md)\)", text)
    assert len(links) > 3
    assert all((NOTEBOOK.parent / link).exists() for link in links)


@pytest.mark.interop
@pytest.mark.slow
@pytest.mark.minutes(5)
def test_a_notebook_on_one_gpu(journey: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbclient
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    (settings,) = (n for n, cell in enumerate(notebook.cells) if "tags" in cell.metadata)
    notebook.cells.insert(settings + 1, nbformat.v4.new_code_cell(TINY))
    client = nbclient.NotebookClient(
        notebook, timeout=3600, resources={"metadata": {"path": str(journey.here)}}
    )
    for name, value in journey.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME", "MPLCONFIGDIR", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    with journey.timed("docs/own_text.ipynb, tiny"):
        client.execute()
    outputs = {cell.get("id"): cell.get("outputs", []) for cell in notebook.cells}
    assert outputs["curves"][0]["data"]["image/png"]
    assert outputs["report"][0]["data"]["text/markdown"].count("# text: accuracy") == 2
    work = journey.here / "own_text"
    assert (work / "exported/model.safetensors").exists()
    assert (work / "exported_classifier/model.safetensors").exists()
