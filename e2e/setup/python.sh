#!/usr/bin/env bash
# A virtual environment with the Python clients, wheels only.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

requirements="$SETUP_DIR/python/requirements.txt"
venv="$E2E_TOOLS/python"
stamp=$(stamp_of "$requirements")
if is_fresh "$venv" "$stamp" && "$venv/bin/python" -c 'import confluent_kafka, kafka' 2>/dev/null; then
    exit 0
fi

say "python clients into $venv"
rm -rf "$venv"
# Debian's own interpreter: whatever else is on PATH may change under a cached environment.
/usr/bin/python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: -r "$requirements" >&2 ||
    die "pip could not install $requirements (is PyPI reachable?)"
"$venv/bin/python" -c 'import confluent_kafka, kafka, lz4.frame, snappy, zstandard' ||
    die "the python clients are installed but do not load"
mark_fresh "$venv" "$stamp"
