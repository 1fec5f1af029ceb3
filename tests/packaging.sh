#!/usr/bin/env bash
# Walks what ships the broker, without a container engine and without systemd as the first process:
#   tests/packaging/image.py     the Dockerfile's own steps, in a scratch directory, as its user
#   tests/packaging/service.py   the systemd unit: what systemd says of it, and what the broker tells a service manager
# What cannot be walked here is said aloud in lines that begin with "not walked". Ends with `N passed, N failed`.
#
# SABIR_BIN names a broker that is built already. It then takes the place of what the Dockerfile's `cargo build` makes,
# and that step is checked by `cargo check` with the same options over the files that the COPY lines have brought: a
# manifest, a source or an included file that they miss fails there. Without SABIR_BIN the step runs as it stands.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
exec </dev/null
export PYTHONDONTWRITEBYTECODE=1
output=$(mktemp)
trap 'rm -f "$output"' EXIT
broke=0
python3 tests/packaging/image.py | tee "$output" || broke=1
binary=${SABIR_BIN:-$PWD/target/packaging/stage-build/build/target/release/sabir}
SABIR_BIN=$binary python3 tests/packaging/service.py | tee -a "$output" || broke=1
passed=$(grep -c '^ok ' "$output")
failed=$(grep -c '^FAIL ' "$output")
if [ "$broke" = 1 ] && [ "$failed" = 0 ]; then
    failed=1
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
