"""The JobSets: fields and types of the API, exit statuses, and numbers that belong together."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from launched_command import read_command

from experiments.cli.exit_codes import ExitCode

# From ml_collections, which reads config files this way.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

FILES = sorted(Path("experiments/launch").glob("jobset_*.yaml"))
TYPES = {"text": str, "number": int, "truth": bool}

# The fields of jobset.x-k8s.io/v1alpha2 that are used, and those of batch/v1 and core/v1 below
# them. A name with ! is required; a list has one form for all of its members; "*" is any name.
CONTAINER = {
    "name!": "text",
    "image!": "text",
    "command": ["text"],
    "args": ["text"],
    "env": [{"name!": "text", "valueFrom!": {"fieldRef!": {"fieldPath!": "text"}}}],
    "securityContext": {"privileged": "truth", "runAsUser": "number"},
    "ports": [{"containerPort!": "number"}],
    "resources": {"limits": {"*": "number"}},
    "volumeMounts": [{"name!": "text", "mountPath!": "text"}],
}
POD = {
    "restartPolicy!": "text",
    "terminationGracePeriodSeconds": "number",
    "nodeSelector": {"*": "text"},
    "tolerations": [{"key": "text", "operator": "text", "effect": "text"}],
    "containers!": [CONTAINER],
    "volumes": [
        {
            "name!": "text",
            "persistentVolumeClaim": {"claimName!": "text"},
            "emptyDir": {"medium": "text"},
        }
    ],
}
ON_EXIT_CODES = {"containerName": "text", "operator!": "text", "values!": ["number"]}
JOB = {
    "completionMode": "text",
    "parallelism": "number",
    "completions": "number",
    "backoffLimit": "number",
    "podFailurePolicy": {"rules!": [{"action!": "text", "onExitCodes": ON_EXIT_CODES}]},
    "template!": {"spec!": POD},
}
JOBSET = {
    "apiVersion!": "text",
    "kind!": "text",
    "metadata!": {"name!": "text", "annotations": {"*": "text"}},
    "spec!": {
        "network": {"enableDNSHostnames": "truth"},
        "coordinator": {"replicatedJob!": "text", "jobIndex": "number", "podIndex": "number"},
        "failurePolicy": {
            "maxRestarts": "number",
            "restartStrategy": "text",
            "rules": [{"name!": "text", "action!": "text", "onJobFailureReasons": ["text"]}],
        },
        "replicatedJobs": [{"name!": "text", "replicas": "number", "template!": {"spec!": JOB}}],
    },
}


def find_faults(value: Any, form: Any, place: str = "") -> list[str]:
    """Return the parts of a value that do not have its form."""
    if isinstance(form, str):
        return [] if type(value) is TYPES[form] else [f"{place}: {value!r} is no {form}"]
    if type(value) is not type(form):
        return [f"{place}: {value!r}"]
    if isinstance(form, list):
        return [
            fault
            for number, one in enumerate(value)
            for fault in find_faults(one, form[0], f"{place}[{number}]")
        ]
    names = {name.rstrip("!"): below for name, below in form.items()}
    faults = [f"{place}.{n[:-1]} is missing" for n in form if n[-1] == "!" and n[:-1] not in value]
    for name, below in value.items():
        known = names.get(name, names.get("*"))
        there = f"{place}.{name}"
        faults += [f"{there} is unknown"] if known is None else find_faults(below, known, there)
    return faults


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def jobset(request: pytest.FixtureRequest) -> dict[str, Any]:
    return yaml.safe_load(request.param.read_text())


def parts(jobset: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The one replicated job, the spec of its job, and its container."""
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    return replicated, job, container


def test_a_jobset_has_the_fields_of_the_api(jobset: dict[str, Any]) -> None:
    assert find_faults(jobset, JOBSET) == []
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert find_faults({"a": 1, "c": 2}, {"a!": "text", "b!": "text"}) == [
        ".b is missing",
        ".a: 1 is no text",
        ".c is unknown",
    ]


def test_statuses_that_a_restart_cannot_mend_end_the_jobset_and_all_others_restart_it(
    jobset: dict[str, Any],
) -> None:
    policy, (_, job, container) = jobset["spec"]["failurePolicy"], parts(jobset)
    (rule,) = job["podFailurePolicy"]["rules"]
    final = {ExitCode.BAD_INPUT, ExitCode.NON_FINITE, ExitCode.FAULTY_DEVICE}
    assert rule["action"] == "FailJob"
    assert set(rule["onExitCodes"]["values"]) == {int(code) for code in final}
    assert rule["onExitCodes"]["operator"] == "In"
    assert rule["onExitCodes"]["containerName"] == container["name"]
    # The job then fails for this reason; for any other one, all pods are made again.
    (ends,) = policy["rules"]
    assert (ends["action"], ends["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    assert policy["maxRestarts"] > 0
    assert policy["restartStrategy"] == "BlockingRecreate"
    assert job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # else there is no exit status


def test_what_is_named_twice_is_the_same(jobset: dict[str, Any]) -> None:
    _, job, container = parts(jobset)
    assert job["completionMode"] == "Indexed"
    assert job["parallelism"] == job["completions"]
    mounted = {one["name"] for one in container.get("volumeMounts", [])}
    assert mounted == {one["name"] for one in job["template"]["spec"].get("volumes", [])}
    used = set(re.findall(r"\$\((\w+)\)", " ".join(container["args"])))
    assert used == {one["name"] for one in container.get("env", [])}


def test_a_jobset_of_gpus_names_the_processes_of_its_run() -> None:
    jobset = yaml.safe_load(Path("experiments/launch/jobset_gpu.yaml").read_text())
    replicated, job, container = parts(jobset)
    pods = replicated["replicas"] * job["parallelism"]
    places = {"COORDINATOR": "albert-node-0-0.albert", "PROCESS": str(pods - 1)}
    filled = [re.sub(r"\$\((\w+)\)", lambda m: places[m[1]], one) for one in container["args"]]
    config, given = read_command([*container["command"], *filled])
    host, _, port = given.coordinator_address.rpartition(":")
    assert (given.num_processes, given.process_id, host) == (pods, pods - 1, places["COORDINATOR"])
    assert [one["containerPort"] for one in container["ports"]] == [int(port)]
    assert given.join_seconds >= 3600
    assert given.workdir.startswith("/shared/") and config.data.corpus_dir.startswith("/shared/")
    coordinator = jobset["spec"]["coordinator"]
    assert coordinator == {"replicatedJob": replicated["name"], "jobIndex": 0, "podIndex": 0}
    assert (
        config.global_batch_size % (pods * container["resources"]["limits"]["nvidia.com/gpu"]) == 0
    )


def test_a_jobset_of_tpus_has_the_hosts_of_its_slices() -> None:
    jobset = yaml.safe_load(Path("experiments/launch/jobset_tpu.yaml").read_text())
    replicated, job, container = parts(jobset)
    topology = job["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    chips = math.prod(map(int, topology.split("x")))
    assert chips == job["parallelism"] * container["resources"]["limits"]["google.com/tpu"]
    config, given = read_command([*container["command"], *container["args"]])
    assert config.run.dcn_data == replicated["replicas"]
    assert given.coordinator_address is None  # JAX finds it, and listens at this port
    assert 8482 in {one["containerPort"] for one in container["ports"]}
    assert given.join_seconds >= 3600
    assert given.workdir.startswith("gs://") and config.data.corpus_dir.startswith("gs://")
    assert config.global_batch_size % (replicated["replicas"] * chips) == 0
