#!/usr/bin/env bash
# Prints the directory of Apache Kafka's jars, after java.sh has fetched them if need be.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

"$SETUP_DIR/java.sh" >&2
printf '%s\n' "$E2E_TOOLS/java/jars"
