#!/usr/bin/env bash
# The clients' own suites: librdkafka's, and with `rust-rdkafka` as argument that one's too. Built once, some minutes
# each, into ${TAKHIN_CACHE:-$HOME/.cache/takhin}/compat.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Name, version and SHA-256 of the archives on crates.io; the first carries librdkafka 2.12.1 with its tests.
librdkafka=(rdkafka-sys 4.10.0+2.12.1 e234cf318915c1059d4921ef7f75616b5219b10b46e9f3a511a15eb4b56a3f77)
rust_rdkafka=(rdkafka 0.39.0 d7956f9ac12b5712e50372d9749a3102f4810a8d42481c5eae3748d36d585bcf)
compat="$TAKHIN_CACHE/compat"
mkdir -p "$compat"
stamp=$(stamp_of "${BASH_SOURCE[0]}")

# unpack TARGET NAME VERSION SHA256: a new TARGET with the content of a crate.
unpack() {
    local archive="$compat/$2.crate"
    say "$2 $3 into $1"
    curl -fsSL --retry 3 -o "$archive" "https://static.crates.io/crates/$2/$2-$3.crate" ||
        die "cannot fetch $2 $3 (is static.crates.io reachable?)"
    echo "$4  $archive" | sha256sum --quiet --check >&2 || die "$2 $3 is not the archive that it was"
    rm -rf "$1"
    mkdir -p "$1"
    tar -xzf "$archive" -C "$1" --strip-components 1
    rm "$archive"
}

# build LOG COMMAND...: runs it quietly; shows the end of its output when it fails.
build() {
    local log="$compat/$1.log"
    shift
    "$@" >"$log" 2>&1 || { tail -n 40 "$log" >&2; die "'$*' failed; all of its output is in $log"; }
}

build_librdkafka() {
    local target="$compat/librdkafka"
    is_fresh "$target" "$stamp" && return
    unpack "$target" "${librdkafka[@]}"
    say "building librdkafka and its tests (some minutes, once)"
    cd "$target/librdkafka"
    # Without what the system may or may not have; zlib and RapidJSON are needed, lz4 and snappy are inside.
    build librdkafka-configure ./configure --disable-ssl --disable-gssapi --disable-curl --disable-zstd --disable-lz4-ext
    grep -q '^WITH_RAPIDJSON=[[:space:]]*y$' Makefile.config || die "librdkafka does not find RapidJSON"
    build librdkafka-libs make -j2 libs
    build librdkafka-tests make -j2 -C tests build
    mark_fresh "$target" "$stamp"
}

build_rust_rdkafka() {
    local target="$compat/rust-rdkafka"
    is_fresh "$target" "$stamp" && return
    unpack "$target" "${rust_rdkafka[@]}"
    say "building rust-rdkafka and its tests (some minutes, once)"
    cd "$target"
    export CARGO_TARGET_DIR="$target/target" CARGO_PROFILE_TEST_DEBUG=0 CARGO_PROFILE_DEV_DEBUG=0
    build rust-rdkafka-tests cargo test --locked --no-run --test 'test_*'
    mkdir -p tests-built
    # Cargo says "Executable tests/test_admin.rs (/…/deps/test_admin-0123456789abcdef)".
    sed -nE 's|.*Executable tests/([a-z_]+)\.rs \((.*)\)$|\1 \2|p' "$compat/rust-rdkafka-tests.log" |
        while read -r name path; do cp "$path" "tests-built/$name"; done
    [ -x tests-built/test_admin ] || die "cargo built no test_admin of rust-rdkafka"
    rm -rf "$CARGO_TARGET_DIR"
    mark_fresh "$target" "$stamp"
}

# Kafka's tools under the names by which librdkafka's tests call them. They are clients: each broker gets them.
link_tools() {
    "$SETUP_DIR/java.sh" >&2
    mkdir -p "$compat/kafka/bin"
    local name class
    while read -r name class; do
        cat >"$compat/kafka/bin/$name.sh" <<SCRIPT
#!/bin/sh
exec java -Xmx128m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dlog4j2.configurationFile="$E2E_TOOLS/java/logging.xml" \\
    -cp "$E2E_TOOLS/java/jars/*" $class "\$@"
SCRIPT
        chmod +x "$compat/kafka/bin/$name.sh"
    done <<'TOOLS'
kafka-topics org.apache.kafka.tools.TopicCommand
kafka-acls org.apache.kafka.tools.AclCommand
TOOLS
}

"$(dirname "$SETUP_DIR")/../.ci/tools" cc
bash "$SETUP_DIR/debian.sh"
link_tools
(build_librdkafka)
case "${1:-}" in
    "") ;;
    rust-rdkafka) (build_rust_rdkafka) ;;
    *) die "usage: compat.sh [rust-rdkafka]" ;;
esac
