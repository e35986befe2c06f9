#!/usr/bin/env bash
# Installs everything that the end-to-end suites run besides Rust itself; a second run takes a second.
#
# Debian packages go to the system (root or sudo); the rest goes to ${TAKHIN_CACHE:-$HOME/.cache/takhin}/e2e, which
# may be deleted at any time. Versions are pinned in python/requirements.txt, node/package-lock.json, java/pom.xml.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

for part in debian python node java; do
    bash "$SETUP_DIR/$part.sh" || die "$part.sh did not finish"
done
say "ready in $E2E_TOOLS"
