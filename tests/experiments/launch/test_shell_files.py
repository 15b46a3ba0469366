"""The launch files of Slurm and Open MPI: what they start, and when they start it again."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from launched_command import read_command
from launched_script import AGAIN, LAUNCHER, MPI, OVER, SLURM, TPU, Launch, start_and_terminate

from experiments.cli.exit_codes import ExitCode

# From ml_collections, which reads config files this way.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

JOB = {
    "SLURM_JOB_ID": "7",
    "SLURM_NTASKS": "16",
    "SLURM_JOB_NODELIST": "node[1-2]",
    "SLURM_CPUS_PER_TASK": "8",
}


def slurm(here: Path, *statuses: object, state: str = "RUNNING") -> Launch:
    programs = {
        "srun": 'echo "cpus $SRUN_CPUS_PER_TASK" >> $HERE/calls'
        + LAUNCHER.format(name="srun", on_signal=""),
        "scontrol": f"echo JobState={state}",
        "scancel": "touch $HERE/signaled",  # which signals the tasks, through srun here
    }
    return Launch(SLURM, here, programs, [*statuses])


@pytest.mark.parametrize("status", [*AGAIN, *OVER])
def test_a_slurm_job_is_queued_again_after_some_statuses(tmp_path: Path, status: int) -> None:
    job = slurm(tmp_path, status)
    assert job.run(**JOB) == status
    assert job.calls("scontrol requeue") == ["scontrol requeue 7"] * (status in AGAIN)


def test_a_slurm_job_is_not_queued_again_for_ever_nor_after_scancel(tmp_path: Path) -> None:
    job = slurm(tmp_path, 75, 75)
    assert job.run(**JOB, MAX_RESTARTS="3", SLURM_RESTART_COUNT="2") == 75
    assert len(job.calls("scontrol requeue")) == 1
    assert job.run(**JOB, MAX_RESTARTS="3", SLURM_RESTART_COUNT="3") == 75
    assert len(job.calls("scontrol requeue")) == 1
    (tmp_path / "cancelled").mkdir()
    cancelled = slurm(tmp_path / "cancelled", 75, state="COMPLETING")
    assert cancelled.run(**JOB) == 75
    assert cancelled.calls("scontrol requeue") == []


def test_sigterm_reaches_the_tasks_of_a_slurm_job_and_not_srun(tmp_path: Path) -> None:
    """srun would kill them, so Slurm is asked to signal them."""
    job = slurm(tmp_path, "wait")
    assert start_and_terminate(job, **JOB) == ExitCode.PREEMPTED
    assert job.calls("scancel") == ["scancel --quiet --signal=TERM 7"]
    assert job.calls("scontrol requeue") == ["scontrol requeue 7"]


def test_a_slurm_job_may_be_queued_again_and_runs_the_command(tmp_path: Path) -> None:
    options = re.findall(r"^#SBATCH --(\S+)", SLURM.read_text(), re.M)
    assert {"requeue", "open-mode=append"} <= set(options)  # otherwise its log begins anew
    (seconds,) = (o.removeprefix("signal=B:TERM@") for o in options if o.startswith("signal="))
    assert int(seconds) >= 120
    job = slurm(tmp_path, 0)
    given = {"CONFIG": "albert_large_packed", "CORPUS": "c", "WORKDIR": "w", "PYTHON": "python"}
    job.run("--config.run.fsdp=2", **JOB, **given)
    assert job.calls("cpus") == ["cpus 8"]
    words = job.given("srun")
    config, values = read_command(words[words.index("python") :])
    assert (config.data.corpus_dir, config.run.fsdp, values.workdir) == ("c", 2, "w")
    assert config.model.num_hidden_layers == 24
    assert values.coordinator_address is None  # JAX knows Slurm


# Runs process 0 alone, passes SIGUSR1 on, and ends with 0 whatever the process's status.
MPIRUN = """
printf '%s\\n' "$@" > "$HERE/mpirun.0"
while [ "$1" != bash ]; do shift; done
export OMPI_COMM_WORLD_SIZE=8 OMPI_COMM_WORLD_RANK=0
"$@" &
process=$!
trap 'kill -USR1 "$process"' USR1
while kill -0 "$process" 2> /dev/null; do wait "$process"; done
exit 0
"""


def mpirun(here: Path, *statuses: object) -> Launch:
    # mpirun signals all processes of a group: the command itself gets SIGUSR1 too.
    on_signal = "kill -USR1 $$; trap 'touch $HERE/signaled' TERM"
    python = LAUNCHER.format(name="python", on_signal=on_signal)
    return Launch(MPI, here, {"mpirun": MPIRUN, "python": python}, [*statuses])


def test_mpirun_starts_again_after_some_statuses(tmp_path: Path) -> None:
    launch = mpirun(tmp_path, *AGAIN, 0)
    assert launch.run() == 0
    assert len(launch.calls("mpirun")) == len(AGAIN) + 1
    for status in OVER:
        (tmp_path / "statuses").write_text(f"{int(status)}\n")
        (tmp_path / "calls").unlink()
        assert launch.run() == status
        assert len(launch.calls("mpirun")) == 1
    (tmp_path / "statuses").write_text("4\n" * 9)
    (tmp_path / "calls").unlink()
    assert launch.run(MAX_RESTARTS="2") == ExitCode.LOST_PROCESS
    assert len(launch.calls("mpirun")) == 3


def test_sigterm_reaches_the_processes_of_mpirun_which_is_not_started_again(
    tmp_path: Path,
) -> None:
    """mpirun would kill them, so it gets SIGUSR1, and each process gets SIGTERM."""
    launch = mpirun(tmp_path, "wait", 0)
    assert start_and_terminate(launch) == ExitCode.PREEMPTED
    assert len(launch.calls("mpirun")) == 1


def test_mpirun_gives_each_process_its_place(tmp_path: Path) -> None:
    launch = mpirun(tmp_path, 0)
    launch.run("--config.run.fsdp=2", HOSTS="one,two", PER_HOST="4", NCCL_DEBUG="INFO")
    words = launch.given("mpirun")
    assert words[:4] == ["--host", "one:4,two:4", "--map-by", "ppr:4:node"]
    assert words[words.index("NCCL_DEBUG") - 1] == "-x"
    assert {"--bind-to", "PATH"} <= set(words) and "HERE" not in words
    config, values = read_command(["python", *launch.given("python")])
    assert (values.num_processes, values.process_id) == (8, 0)
    assert (values.coordinator_address, config.run.fsdp) == ("one:1234", 2)


@pytest.mark.interop
@pytest.mark.parametrize("file", [SLURM, MPI, TPU], ids=lambda path: path.name)
def test_shellcheck_finds_nothing(file: Path) -> None:
    linter = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert linter is not None
    found = subprocess.run([linter, file], capture_output=True, text=True)
    assert (found.returncode, found.stdout + found.stderr) == (0, "")
