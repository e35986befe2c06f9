#!/usr/bin/env bash
# Apache Kafka as jars from Maven Central: broker, tools, client.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

pom="$SETUP_DIR/java/pom.xml"
target="$E2E_TOOLS/java"
stamp=$(stamp_of "$pom" "$SETUP_DIR/java/logging.xml")
if is_fresh "$target" "$stamp"; then
    exit 0
fi

say "Apache Kafka into $target"
rm -rf "$target"
mkdir -p "$target/jars"
mvn --batch-mode --quiet -f "$pom" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$target/jars" >&2 ||
    die "maven could not fetch the jars of $pom (is Maven Central reachable?)"
cp "$SETUP_DIR/java/logging.xml" "$target/"
for jar in kafka_2.13 kafka-clients kafka-tools; do
    compgen -G "$target/jars/$jar-*.jar" >/dev/null || die "$jar is not among the fetched jars"
done
mark_fresh "$target" "$stamp"
