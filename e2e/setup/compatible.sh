#!/usr/bin/env bash
# Builds takhin as it was at the commit in e2e/compatible-commit, and prints where it is: chaos runs one of the brokers with
# it. Once for each commit, some minutes. Prints nothing where the clone is too shallow to have the commit.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cd "$SETUP_DIR/../.."
commit=$(cat e2e/compatible-commit)
home="$TAKHIN_CACHE/compatible"
binary="$home/$commit/takhin"

if [ ! -x "$binary" ]; then
    if ! git cat-file -e "$commit^{commit}" 2>/dev/null; then
        say "no broker of an older build takes part: this clone lacks commit $commit (git fetch --unshallow)"
        exit 0
    fi
    say "building takhin of ${commit:0:12} (some minutes, once)"
    rm -rf "${home:?}/$commit"
    mkdir -p "$home/$commit/src"
    git archive "$commit" | tar -xf - -C "$home/$commit/src"
    # The target outlives the sources: the next commit finds its dependencies there.
    (cd "$home/$commit/src" && CARGO_TARGET_DIR="$home/target" cargo build --release --locked -p takhin-broker >&2)
    cp "$home/target/release/takhin" "$binary.part"
    mv "$binary.part" "$binary"
    rm -rf "$home/$commit/src"
fi
echo "$binary"
