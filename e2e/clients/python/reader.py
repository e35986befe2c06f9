"""Consumers that read a topic through every fault, and log what they read.

usage: reader.py TOPIC LOG BOOTSTRAP...

One consumer for each BOOTSTRAP, from the beginning of the topic, each in a group of its own that commits by itself.

Log lines:
    J reader                            has its partitions
    R reader partition offset crc32 value up to the padding
    X reader partition offset           the position was there no more, and the consumer begins anew at the beginning
    L reader ms                         at the end: the longest time from a record's timestamp to its being read
A reader is the number of its BOOTSTRAP, from 0 on. When standard input ends they read on to what is the end of each partition
then, and exit with 0; with 4 when that is not reached.
"""

import sys
import threading
import time
import zlib

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

END_LIMIT_SECONDS = 100


class Reader:
    def __init__(self, name, topic, bootstrap, log):
        self.name, self.topic, self.log = name, topic, log
        self.next, self.latest = {}, 0
        self.ends = None
        self.consumer = Consumer({
            "bootstrap.servers": bootstrap,
            "client.id": f"reader-{name}",
            "group.id": f"{topic}-reader-{name}",
            # Where there is no commit yet, `assigned` says where to begin; a position that is lost later is told.
            "auto.offset.reset": "error",
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 200,
            "error_cb": self.complain,
        })
        self.consumer.subscribe([topic], on_assign=self.assigned)

    def complain(self, error):
        print(f"reader {self.name}: {error}", file=sys.stderr, flush=True)

    def assigned(self, consumer, partitions):
        if not partitions:
            return
        committed = consumer.committed(partitions, timeout=60)
        for partition in committed:
            if partition.offset < 0:
                partition.offset = OFFSET_BEGINNING
        consumer.assign(committed)
        self.log.write(f"J {self.name}\n")

    def reset(self, message):
        self.log.write(f"X {self.name} {message.partition()} {self.next.get(message.partition(), -1)}\n")
        self.consumer.assign([
            TopicPartition(at.topic, at.partition, OFFSET_BEGINNING)
            if at.partition == message.partition() or at.offset < 0 else at
            for at in self.consumer.position(self.consumer.assignment())
        ])

    def read(self):
        for message in self.consumer.consume(200, 0.05):
            if message.error():
                self.complain(message.error())
                if message.error().code() == KafkaError._AUTO_OFFSET_RESET:
                    self.reset(message)
                continue
            partition, offset, value = message.partition(), message.offset(), message.value()
            self.next[partition] = max(self.next.get(partition, 0), offset + 1)
            self.latest = max(self.latest, int(time.time() * 1000) - message.timestamp()[1])
            words = " ".join(value.decode().split(" ")[:3])
            self.log.write(f"R {self.name} {partition} {offset} {zlib.crc32(value)} {words}\n")

    def is_at_end(self):
        """Whether everything was read that was there when this was asked first."""
        if self.ends is None:
            try:
                known = self.consumer.list_topics(self.topic, timeout=5).topics[self.topic].partitions
                ends = {id: self.consumer.get_watermark_offsets(TopicPartition(self.topic, id), timeout=5)[1] for id in known}
            except KafkaException as error:
                self.complain(error)
                return False
            self.ends = ends
        return all(self.next.get(id, 0) >= end for id, end in self.ends.items())


def main():
    topic, path, bootstraps = sys.argv[1], sys.argv[2], sys.argv[3:]
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    with open(path, "w", buffering=1) as log:
        readers = [Reader(name, topic, bootstrap, log) for name, bootstrap in enumerate(bootstraps)]
        while not stop.is_set():
            for reader in readers:
                reader.read()
        # How late something was read is told of what was written before the end was asked for.
        deadline, left = time.monotonic() + END_LIMIT_SECONDS, readers
        while left and time.monotonic() < deadline:
            left = [reader for reader in left if not reader.is_at_end()]
            for reader in left:
                reader.read()
        for reader in readers:
            log.write(f"L {reader.name} {reader.latest}\n")
    if left:
        sys.exit(print(f"not at the end: {[(r.name, r.next, r.ends) for r in left]}", file=sys.stderr) or 4)
    for reader in readers:
        reader.consumer.close()


main()
