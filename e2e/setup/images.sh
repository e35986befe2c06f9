#!/usr/bin/env bash
# Builds the images takhin/takhin and takhin/takhin-operator for this machine's architecture, from Dockerfile.broker and
# Dockerfile.operator.
#
#   images.sh [TAG]      the tag is "dev" by default
#
# Says how large images and programs are, and fails where one is larger than it may be. Prints the archive with both images, for `ctr images import` or `docker load`:
# ${CARGO_TARGET_DIR:-target}/images/TAG.tar. Programs come from TAKHIN_BIN, TAKHIN_CDC_BIN and
# TAKHIN_OPERATOR_BIN; those that are not named are built, optimised. The program rsync, for takhin-cdc, is the system's. With BASE=IMAGE the images stand on that, such as gcr.io/distroless/cc-debian12:nonroot;
# without it on nothing, and hold the system's libraries that the programs need. Where no Docker answers and this runs as
# root, one is started for as long as it takes, without network.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

TAG="${1:-dev}"
ROOT="$(cd "$SETUP_DIR/../.." && pwd)"
TARGET="${CARGO_TARGET_DIR:-$ROOT/target}"
OUT="$TARGET/images"
ARCH="$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')"
# PG-31 (docs/performance.md): the most that an image may have, compressed, and a program in it, in millions of bytes.
IMAGE_MAX=60
PROGRAM_MAX=40

# program VARIABLE PACKAGE NAME: prints where the program is, after building it if need be.
program() {
    local named="${!1:-}"
    if [ -z "$named" ]; then
        (cd "$ROOT" && CARGO_TARGET_DIR="$TARGET" cargo build --release --locked -p "$2" >&2)
        named="$TARGET/release/$3"
    fi
    [ -x "$named" ] || die "$named is not a program: mend $1"
    echo "$named"
}

# libraries PROGRAM FOLDER: copies what the program loads into FOLDER, under the same paths.
libraries() {
    { ldd "$1" 2>/dev/null || true; } | tr ' \t' '\n\n' | grep '^/' | sort -u | while read -r library; do
        install -D "$library" "$2$library"
    done
    # Names are looked up by files and DNS; without this the C library would also look for others.
    install -d "$2/etc" "$2/tmp"
    chmod 1777 "$2/tmp"
    echo 'hosts: files dns' >"$2/etc/nsswitch.conf"
    printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n' >"$2/etc/passwd"
    if [ -f /etc/ssl/certs/ca-certificates.crt ]; then
        install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$2/etc/ssl/certs/ca-certificates.crt"
    fi
}

# within NAME BYTES MOST: says how large something is; fails if that is more than MOST million bytes.
within() {
    say "$1: $(awk -v bytes="$2" 'BEGIN { printf "%.1f", bytes / 1e6 }') MB of $3"
    [ "$2" -le $(($3 * 1000000)) ] || die "$1 is larger than $3 MB: find out what has grown, or change the bound in ${BASH_SOURCE[0]##*/} and docs/performance.md"
}

# build DOCKERFILE IMAGE NAME=PROGRAM...
build() {
    local dockerfile=$1 image=$2 context program name
    shift 2
    context="$OUT/context/${image##*/}"
    rm -rf "$context"
    mkdir -p "$context/bin/$ARCH" "$context/lib/$ARCH"
    for program in "$@"; do
        name="${program%%=*}"
        strip -o "$context/bin/$ARCH/$name" "${program#*=}"
        if [ -z "${BASE:-}" ]; then
            libraries "${program#*=}" "$context/lib/$ARCH"
        fi
        within "$image:$TAG: $name" "$(stat -c %s "$context/bin/$ARCH/$name")" "$PROGRAM_MAX"
    done
    DOCKER_BUILDKIT=0 docker build -q --build-arg "TARGETARCH=$ARCH" ${BASE:+--build-arg "BASE=$BASE"} \
        -f "$ROOT/$dockerfile" -t "$image:$TAG" "$context" >&2
    # As a registry has it: each layer by itself, which comes to the same but for some bytes.
    within "$image:$TAG, compressed" "$(docker save "$image:$TAG" | gzip -c | wc -c)" "$IMAGE_MAX"
}

# with_docker: has `docker` answer.
with_docker() {
    command -v docker >/dev/null && docker version >/dev/null 2>&1 && return
    [ "$(id -u)" = 0 ] || die "no Docker answers: start it, or run this as root"
    if ! command -v dockerd >/dev/null; then
        command -v apt-get >/dev/null || die "Docker is missing: install it by hand"
        say "apt-get install docker.io"
        apt-get -qq update >&2
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends docker.io >&2
    fi
    private=$(mktemp -d)
    export DOCKER_HOST="unix://$private/docker.sock"
    dockerd --data-root "$private/data" --exec-root "$private/run" --pidfile "$private/pid" --host "$DOCKER_HOST" \
        --bridge none --iptables=false --storage-driver vfs >"$private/log" 2>&1 &
    daemon=$!
    trap 'kill "$daemon"; wait "$daemon" || true; rm -rf "$private"' EXIT
    for _ in $(seq 300); do
        docker version >/dev/null 2>&1 && return
        kill -0 "$daemon" 2>/dev/null || break
        sleep 0.1
    done
    die "dockerd does not start: $(tail -3 "$private/log")"
}

"$ROOT/.ci/tools" rsync
rsync=$(command -v rsync)
broker=$(program TAKHIN_BIN takhin-broker takhin)
cdc=$(program TAKHIN_CDC_BIN takhin-cdc takhin-cdc)
operator=$(program TAKHIN_OPERATOR_BIN takhin-operator takhin-operator)
archive="$OUT/$TAG.tar"
mkdir -p "$OUT"
# The same programs and files make the same images.
stamp=$(stamp_of "$broker" "$cdc" "$rsync" "$operator" "$ROOT/Dockerfile.broker" "$ROOT/Dockerfile.operator" "${BASH_SOURCE[0]}" <(echo "${BASE:-}"))
if [ ! -f "$archive" ] || ! { [ -f "$archive.stamp" ] && [ "$(cat "$archive.stamp")" = "$stamp" ]; }; then
    with_docker
    build Dockerfile.broker takhin/takhin "takhin=$broker" "takhin-cdc=$cdc" "rsync=$rsync"
    build Dockerfile.operator takhin/takhin-operator "takhin-operator=$operator"
    docker save -o "$archive" "takhin/takhin:$TAG" "takhin/takhin-operator:$TAG"
    echo "$stamp" >"$archive.stamp"
fi
echo "$archive"
