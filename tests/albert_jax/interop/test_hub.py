"""Names of models on the Hugging Face Hub, without a hub and without its package."""

import sys
from pathlib import Path
from typing import Any

import pytest

from albert_jax import read_pretrained
from albert_jax.interop.hub import HubError, check_upload, is_hub_name, local_path
from albert_jax.interop.names import WeightsError
from data_pipeline import AlbertTokenizer
from data_pipeline.errors import InputError


def test_a_name_is_no_path_that_is_or_could_be_here(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert is_hub_name("albert/albert-base-v2")
    for path in ("runs/bsae", "albert", "a/b/c", "/a/b", "./a", "../a", "gs://a", "~/a", "a/", ""):
        assert not is_hub_name(path), path
        assert local_path(path) is path
    assert local_path(tmp_path) is tmp_path
    with pytest.raises(WeightsError, match="there is no runs/bsae"):
        read_pretrained("runs/bsae")


def test_without_the_package_one_line_says_what_to_install(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    expected = r"there is no directory no/such; .* pip install 'albert-jax\[hub\]'; .hf download"
    with pytest.raises(WeightsError, match=expected):
        read_pretrained("no/such")
    with pytest.raises(InputError, match=expected):
        AlbertTokenizer.from_pretrained("no/such")
    with pytest.raises(HubError, match=r"^--push_to_hub needs pip install 'albert-jax\[hub\]'$"):
        check_upload("me/model")
    for name in ("model", "/tmp/model", "a/b/c", "me/"):
        with pytest.raises(HubError, match="must be a name of the form user/model"):
            check_upload(name)
