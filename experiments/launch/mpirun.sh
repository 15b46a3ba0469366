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
status_file=$(mktemp)
trap 'rm -f "$status_file"' EXIT
environment=()
for name in $(compgen -e | grep -E '^(PATH|PYTHONPATH|LD_LIBRARY_PATH|(JAX|XLA|NCCL|TF)_.*)$'); do
    environment+=(-x "$name")
done
# A process that ends lets the others end by themselves. mpirun then ends with 0: process 0, which
# is here and ends as all of them do, writes its status into a file.
export OMPI_MCA_orte_abort_on_non_zero_status=0
read -r -d '' process << 'EOF'
status_file=$1
shift
trap '' USR1 # for the command too, which gets it with this shell
"$@" --num_processes="$OMPI_COMM_WORLD_SIZE" --process_id="$OMPI_COMM_WORLD_RANK" &
child=$!
trap 'kill -TERM "$child"' USR1
while kill -0 "$child" 2> /dev/null; do wait "$child"; done # a signal ends `wait` alone
wait "$child"
status=$?
[ "$OMPI_COMM_WORLD_RANK" != 0 ] || echo "$status" > "$status_file"
exit "$status"
EOF

# mpirun, given SIGTERM, would kill the processes before they have saved: it passes SIGUSR1 on.
mpirun=
terminated=false
terminate() {
    terminated=true
    [ -z "$mpirun" ] || kill -USR1 "$mpirun"
}
trap terminate TERM

restarts=0
while :; do
    : > "$status_file"
    mpirun --host "${HOSTS//,/:$PER_HOST,}:$PER_HOST" --map-by "ppr:$PER_HOST:node" --bind-to none \
        "${environment[@]}" bash -c "$process" process "$status_file" \
        "$PYTHON" -m experiments.pretrain --config="$CONFIG" --config.data.corpus_dir="$CORPUS" \
        --workdir="$WORKDIR" "$@" --coordinator_address="${HOSTS%%,*}:$PORT" &
    mpirun=$!
    while kill -0 "$mpirun" 2> /dev/null; do wait "$mpirun"; done
    wait "$mpirun"
    status=$?
    if [ "$status" -eq 0 ]; then status=$(cat "$status_file"); fi
    if $terminated || [ "$restarts" -ge "$MAX_RESTARTS" ]; then exit "$status"; fi
    case $status in
        75 | 4) ;;
        *) if [ "$status" -le 128 ]; then exit "$status"; fi ;;
    esac
    restarts=$((restarts + 1))
    echo "mpirun.sh: status $status, start $((restarts + 1))"
done
