#!/usr/bin/env bash
# The Node clients, at the versions of the lock file.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

target="$E2E_TOOLS/node"
stamp=$(stamp_of "$SETUP_DIR/node/package-lock.json")
if is_fresh "$target" "$stamp"; then
    exit 0
fi

say "node clients into $target"
rm -rf "$target"
mkdir -p "$target"
cp "$SETUP_DIR/node/package.json" "$SETUP_DIR/node/package-lock.json" "$target/"
npm ci --prefix "$target" --ignore-scripts --no-audit --no-fund --loglevel=error >&2 ||
    die "npm could not install $SETUP_DIR/node/package-lock.json (is the npm registry reachable?)"
(cd "$target" && node -e 'require("kafkajs"); require("kafkajs-snappy"); require("lz4-napi")') ||
    die "the node clients are installed but do not load"
mark_fresh "$target" "$stamp"
