#!/usr/bin/env bash
# Tune a network over HTTP: upload, submit, follow, ask for the best schedules, download the artifact.
#
#   crosstune serve &
#   examples/http.sh model.onnx [SECONDS]
#
# Needs curl and jq. CROSSTUNE_URL names another address.
set -euo pipefail

model=$1
seconds=${2:-300}
url=${CROSSTUNE_URL:-http://127.0.0.1:8642}

request() { curl --silent --show-error --fail-with-body "$@"; }
post() { request --header 'Content-Type: application/json' --data "$2" "${@:3}" "$url$1"; }

target=$(post /v1/targets/detect '{}' | jq --raw-output .id)

# The same bytes again are the same network, so that nothing is uploaded twice.
network=$(request --header 'Content-Type: application/octet-stream' --data-binary "@$model" "$url/v1/networks" |
  jq --raw-output .id)

# A job may be submitted while the import runs. The key makes it safe to repeat a request whose answer was lost.
job=$(post /v1/jobs "{\"network\": \"$network\", \"target\": \"$target\", \"budget\": {\"seconds\": $seconds}}" \
  --header "Idempotency-Key: $(cat /proc/sys/kernel/random/uuid)" | jq --raw-output .id)
echo "job $job"

# The stream ends when the job has ended. After a break, go on with --header "Last-Event-ID: N".
request --no-buffer "$url/v1/jobs/$job/events" | sed --unbuffered --quiet 's/^data: //p' |
  jq --unbuffered --compact-output '[.kind, .data.state // .data.job_trials // .data.build]'

ended=$(request "$url/v1/jobs/$job")
if [[ $(jq --raw-output .state <<<"$ended") != succeeded ]]; then
  jq .failure <<<"$ended" >&2
  exit 1
fi

request "$url/v1/schedules/best?target=$target&network=$network" |
  jq --raw-output '.schedules[] | [.name, .weight, .label, .latency_s] | @tsv'

build=$(jq --raw-output .build <<<"$ended")
request --output "$build.tar" "$url/v1/builds/$build/artifact"
request "$url/v1/builds/$build" | jq '{tuned_latency_s, untuned_latency_s, reference_latency_s, largest_error}'
echo "artifact $build.tar; python -m crosstune.tuner.artifact $build.tar runs it"
