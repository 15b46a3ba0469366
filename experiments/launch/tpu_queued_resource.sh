#!/bin/bash
# Pre-train on TPU slices out of Cloud TPU's queue, and give them back at the end:
#
#   IMAGE=REGION-docker.pkg.dev/PROJECT/REPOSITORY/albert-jax:tpu BUCKET=gs://BUCKET \
#       SLICES=2 experiments/launch/tpu_queued_resource.sh --config.run.dtype=bfloat16
#
# The image is that of containers/Dockerfile with DEVICE=tpu,gcs. Flags after the name of this file
# are the command's.
#
# Every host runs the command when it boots. JAX learns the places of the hosts from the machines'
# metadata, and the run finds the slices. On the hosts the command starts again, and the run
# resumes, after status 75 and 4 and after a signal. With any other status the run is over: a host
# writes it beside the workdir, and this script, which waits for it, deletes the slices and ends
# with it. Slices that were preempted are requested again.
NAME=${NAME:-albert}
ZONE=${ZONE:-us-west4-a}
ACCELERATOR=${ACCELERATOR:-v5litepod-64}
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}
SLICES=${SLICES:-1}
IMAGE=${IMAGE:?names the image}
BUCKET=${BUCKET:?names a bucket, gs://...}
CONFIG=${CONFIG:-albert_base_packed}
CORPUS=${CORPUS:-$BUCKET/wiki_en}
WORKDIR=${WORKDIR:-$BUCKET/runs/base}
OPTIONS=${OPTIONS:---spot} # of `queued-resources create`, such as --reserved
POLL_SECONDS=${POLL_SECONDS:-60}
MAX_RESTARTS=${MAX_RESTARTS:-100}

set -euo pipefail
queue=(gcloud compute tpus queued-resources)
status_file=$WORKDIR.status
command=(
    python -m experiments.pretrain --config="$CONFIG" --config.data.corpus_dir="$CORPUS"
    --workdir="$WORKDIR" --join_seconds=3600 "$@"
)
startup=$(mktemp)
trap 'rm -f "$startup"' EXIT

cat > "$startup" << EOF
#!/bin/bash
export HOME=/root
gcloud auth configure-docker ${IMAGE%%/*} --quiet
for start in {0..$MAX_RESTARTS}; do
    docker run --rm --privileged --user=0 --net=host --stop-timeout=300 ${IMAGE@Q} ${command[@]@Q}
    status=\$?
    case \$status in
        75 | 4) ;;
        *) if [ \$status -le 128 ]; then break; fi ;;
    esac
done
echo \$status | gcloud storage cp - ${status_file@Q}
EOF

if [ "$SLICES" -gt 1 ]; then
    nodes=(--node-count="$SLICES" --node-prefix="$NAME")
else
    nodes=(--node-id="$NAME")
fi
finish() {
    "${queue[@]}" delete "$NAME" --zone="$ZONE" --force --quiet
}
gcloud storage rm --quiet "$status_file" 2> /dev/null || true # of an earlier run

for ((start = 0; start <= MAX_RESTARTS; start++)); do
    # shellcheck disable=SC2086 # several options
    "${queue[@]}" create "$NAME" --zone="$ZONE" --accelerator-type="$ACCELERATOR" \
        --runtime-version="$RUNTIME" "${nodes[@]}" --metadata-from-file=startup-script="$startup" \
        $OPTIONS
    state=
    while [[ $state != SUSPENDED && $state != FAILED ]]; do
        sleep "$POLL_SECONDS"
        if status=$(gcloud storage cat "$status_file" 2> /dev/null); then
            echo "tpu_queued_resource.sh: status $status"
            finish
            exit "$status"
        fi
        state=$("${queue[@]}" describe "$NAME" --zone="$ZONE" --format="value(state.state)") || true
    done
    echo "tpu_queued_resource.sh: $state, requested again"
    finish
done
echo "tpu_queued_resource.sh: requested $start times (MAX_RESTARTS)"
exit 1
