"""Writes every stanza of `apt-cache dumpavail`, keyed by package name.

usage: packages.py BOOTSTRAP TOPIC DUMP
"""

import sys

from confluent_kafka import Producer

bootstrap, topic, path = sys.argv[1:]
producer = Producer({
    "bootstrap.servers": bootstrap,
    "compression.type": "lz4",
    "acks": "all",
    "enable.idempotence": True,
    "linger.ms": 5,
})
failed = []


def answered(error, _message):
    if error is not None:
        failed.append(str(error))


with open(path, "rb") as dump:
    stanzas = dump.read().split(b"\n\n")
for stanza in stanzas:
    if not stanza.strip():
        continue
    name = stanza.split(b"Package: ", 1)[1].split(b"\n", 1)[0]
    while True:
        try:
            producer.produce(topic, stanza, name, on_delivery=answered)
            break
        except BufferError:
            producer.poll(0.1)
    producer.poll(0)
left = producer.flush(120)
if left or failed:
    sys.exit(f"{left} records without an answer, {len(failed)} refused: {failed[:3]}")
