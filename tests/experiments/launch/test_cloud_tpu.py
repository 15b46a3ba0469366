"""The launch file of Cloud TPU: slices that are requested, and what their hosts run."""

import re
from pathlib import Path

import pytest
from launched_command import read_command
from launched_script import LAUNCHER, TPU, Launch

# From ml_collections, which reads config files this way.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

# Cloud TPU: the first slices are preempted, and a host of the second ones writes the status.
GCLOUD = """
case "$*" in
    *create*)
        for word in "$@"; do
            case $word in *startup-script=*) cp "${word##*=}" "$HERE/startup" ;; esac
        done ;;
    *describe*) [ $(grep -c create $HERE/calls) = 1 ] && echo SUSPENDED || echo ACTIVE ;;
    *"storage cat"*) [ $(grep -c describe $HERE/calls) -ge 3 ] && echo 2 ;;
esac
"""
# Flags of `gcloud compute tpus queued-resources` that are used.
GCLOUD_FLAGS = {
    "create": {
        *("zone", "accelerator-type", "runtime-version", "metadata-from-file", "spot"),
        *("node-id", "node-count", "node-prefix"),
    },
    "describe": {"zone", "format"},
    "delete": {"zone", "force", "quiet"},
}


@pytest.mark.parametrize("slices", [1, 2])
def test_tpu_slices_are_requested_again_and_deleted_at_the_end(tmp_path: Path, slices: int) -> None:
    launch = Launch(TPU, tmp_path, {"gcloud": GCLOUD}, [])
    given = {
        "IMAGE": "host/a/b:tpu",
        "BUCKET": "gs://b",
        "POLL_SECONDS": "0",
        "CONFIG": "albert_base",
    }
    assert launch.run("--config.run.fsdp=2", **given, SLICES=str(slices)) == 2
    queue = "gcloud compute tpus queued-resources"
    for verb, known in GCLOUD_FLAGS.items():
        for call in launch.calls(f"{queue} {verb}"):
            assert set(re.findall(r" --([a-z-]+)", call)) <= known
    assert [c.split()[4] for c in launch.calls(queue) if "describe" not in c] == [
        "create",
        "delete",
    ] * 2
    (create, _) = launch.calls(f"{queue} create")
    nodes = "--node-id=albert " if slices == 1 else "--node-count=2 --node-prefix=albert "
    assert nodes in create and create.endswith(" --spot")


def test_a_tpu_host_starts_again_and_writes_the_last_status(tmp_path: Path) -> None:
    launch = Launch(TPU, tmp_path, {"gcloud": GCLOUD}, [])
    launch.run("--config.run.fsdp=2", IMAGE="host/a/b:tpu", BUCKET="gs://b", POLL_SECONDS="0")
    (tmp_path / "host").mkdir()
    programs = {
        "gcloud": 'case "$*" in *"storage cp"*) cat > $HERE/status ;; esac',
        "docker": LAUNCHER.format(name="docker", on_signal=""),
    }
    host = Launch(tmp_path / "startup", tmp_path / "host", programs, [75, 4, 137, 3, 0])
    assert host.run() == 0
    assert (tmp_path / "host/status").read_text() == "3\n"
    assert host.calls("gcloud storage cp") == ["gcloud storage cp - gs://b/runs/base.status"]
    words = host.given("docker")
    config, values = read_command(words[words.index("python") :])
    assert (config.run.fsdp, values.workdir) == (2, "gs://b/runs/base")
    assert values.join_seconds >= 3600 and values.coordinator_address is None
    assert {"--net=host", "--privileged", "host/a/b:tpu"} <= set(words)
