# Shared by the setup scripts: where the tools are kept, and how a failure is reported.
# Sourced, never run.

set -euo pipefail

# Outlives checkouts, so that a second clone does not download anything again.
TAKHIN_CACHE="${TAKHIN_CACHE:-$HOME/.cache/takhin}"
E2E_TOOLS="$TAKHIN_CACHE/e2e"
SETUP_DIR="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
mkdir -p "$E2E_TOOLS"

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }
trap 'die "${BASH_SOURCE[0]##*/} line $LINENO failed: $BASH_COMMAND"' ERR

# as_root CMD...: runs CMD as root, by sudo where we are not.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "'$*' needs root: run this as root, or install sudo"
    fi
}

# stamp_of FILE...: identifies what is to be installed by the content of its pinned list.
stamp_of() { cat "$@" | sha256sum | cut -c1-16; }

# is_fresh DIR STAMP / mark_fresh DIR STAMP: whether DIR already holds exactly what STAMP asks for.
is_fresh() { [ -f "$1/.stamp" ] && [ "$(cat "$1/.stamp")" = "$2" ]; }
mark_fresh() { printf '%s' "$2" >"$1/.stamp"; }
