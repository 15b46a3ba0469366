#!/bin/bash
# Pre-train with Open MPI, a process on each host, which then has all of its GPUs:
#
#   HOSTS=node1,node2 experiments/launch/mpirun.sh --config.run.dtype=bfloat16
#   HOSTS=node1,node2 PER_HOST=8 experiments/launch/mpirun.sh     # a process for each of 8 GPUs
#
# Start it on the first host, in the directory of the project, which all of them see under the same
# name. Flags after the name of this file are the command's.
#
# The run is started again, and resumes, when a process was lost (status 4, or ended by a signal)
# and when the watchdog ended it (75), MAX_RESTARTS times. A SIGTERM to this script stops the run,
# which saves; the script then ends with 75, for whoever sent the signal to start it again.
CONFIG=${CONFIG:-albert_base_packed}
CORPUS=${CORPUS:-corpora/wiki_en}
WORKDIR=${WORKDIR:-runs/base} # seen by all hosts
PYTHON=${PYTHON:-python}
HOSTS=${HOSTS:-localhost}
PER_HOST=${PER_HOST:-1}
PORT=${PORT:-1234} # of the first host
MAX_RESTARTS=${MAX_RESTARTS:-100}

set -u
slots=${HOSTS//,/:$PER_HOST,}:$PER_HOST
# A process that ends lets the others end by themselves; after SIGTERM there is time to save.
export OMPI_MCA_orte_abort_on_non_zero_status=0 OMPI_MCA_odls_base_sigkill_timeout=300
environment=()
for name in $(compgen -e | grep -E '^(PATH|PYTHONPATH|LD_LIBRARY_PATH|(JAX|XLA|NCCL|TF)_.*)$'); do
    environment+=(-x "$name")
done

mpirun=
terminated=false
terminate() {
    terminated=true
    [ -z "$mpirun" ] || kill -TERM "$mpirun" # which passes it on to the processes
}
trap terminate TERM

restarts=0
while :; do
    # shellcheck disable=SC2016 # each process has variables of its own
    mpirun --host "$slots" --map-by "ppr:$PER_HOST:node" --bind-to none "${environment[@]}" \
        bash -c 'exec "$@" --num_processes="$OMPI_COMM_WORLD_SIZE" --process_id="$OMPI_COMM_WORLD_RANK"' _ \
        "$PYTHON" -m experiments.pretrain --config="$CONFIG" \
        --config.data.corpus_dir="$CORPUS" --workdir="$WORKDIR" "$@" \
        --coordinator_address="${HOSTS%%,*}:$PORT" &
    mpirun=$!
    if $terminated; then terminate; fi
    wait "$mpirun"
    while kill -0 "$mpirun" 2> /dev/null; do wait "$mpirun"; done # a signal ends `wait` alone
    wait "$mpirun"
    status=$?
    if $terminated || [ "$restarts" -ge "$MAX_RESTARTS" ]; then exit "$status"; fi
    case $status in
        75 | 4) ;;
        *) if [ "$status" -le 128 ]; then exit "$status"; fi ;;
    esac
    restarts=$((restarts + 1))
    echo "mpirun.sh: status $status, start $((restarts + 1))"
done
