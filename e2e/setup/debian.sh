#!/usr/bin/env bash
# Installs the Debian packages that the client suites and the fault suites run. What is there is left alone.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# need COMMAND PACKAGE...: remembers the packages when the command is missing.
missing=()
need() { command -v "$1" >/dev/null || missing+=("${@:2}"); }

PATH="$PATH:/usr/sbin:/sbin"
need kcat kcat
need gcc gcc libc6-dev
need g++ g++
need make make
need curl curl ca-certificates
need git git
need strace strace
need mkfs.xfs xfsprogs
need xfs_io xfsprogs
need losetup mount
need mount mount
need setpriv util-linux
need mvn maven
need node nodejs
need npm npm
# A JDK, not only a runtime: the Java client is compiled from its source when it runs.
need javac openjdk-17-jdk-headless
[ -e /usr/include/zlib.h ] || missing+=(zlib1g-dev)
# Without it librdkafka's tests leave out those that look at statistics.
[ -e /usr/include/rapidjson/schema.h ] || missing+=(rapidjson-dev)
/usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3 python3-venv)

if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || die "missing: ${missing[*]}; this is not a Debian system, install them by hand"
    say "apt-get install ${missing[*]}"
    as_root apt-get -qq update >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >&2 ||
        die "apt-get could not install: ${missing[*]}"
fi

# The real input of one suite is Debian's own package list; a slim image comes without one.
if [ "$(apt-cache dumpavail 2>/dev/null | grep -c '^Package:')" -lt 10000 ]; then
    say "apt-get update: the package list is empty"
    as_root apt-get -qq update >&2
fi

for command in kcat gcc g++ make curl git strace mkfs.xfs xfs_io losetup mount setpriv mvn node npm javac; do
    command -v "$command" >/dev/null || die "$command is still missing after the installation"
done
java_major=$(javac -version 2>&1 | sed -E 's/^javac ([0-9]+).*/\1/')
[ "$java_major" -ge 17 ] || die "javac is version $java_major; Apache Kafka 4 needs 17 or newer"
