"""Idempotent producers that go on through every fault and log what they were told.

usage: writer.py BOOTSTRAP TOPIC PARTITIONS LOG RECORDS_PER_SECOND [NAMES]

A producer for each letter of NAMES, by default two, a and b.

Log lines, in order:
    S writer partition seq crc32     about to be sent
    A writer partition seq offset    acknowledged; offset -1 when the answer had none
    U writer partition seq -         given up without an answer that proves anything
    G writer partition ms -          at the end: the longest time from one acknowledgement of the partition to the next
A value is `writer partition seq padding`. Stops sending when standard input ends, waits for the outstanding answers
and exits with 0; exits with 3 when a producer reports a fatal error, for then its guarantee is gone.
"""

import random
import sys
import threading
import time
import zlib

from confluent_kafka import Producer

FLUSH_LIMIT_SECONDS = 100


class Writer:
    def __init__(self, name, bootstrap, topic, partitions, log):
        self.name, self.topic, self.partitions, self.log = name, topic, partitions, log
        self.seqs = [0] * partitions
        self.answered_at, self.gaps = [None] * partitions, [0.0] * partitions
        self.outstanding = 0
        self.fatal = None
        self.padding = random.Random(name)
        self.producer = Producer({
            "bootstrap.servers": bootstrap,
            "client.id": f"writer-{name}",
            "enable.idempotence": True,
            "acks": "all",
            "max.in.flight.requests.per.connection": 5,
            "batch.num.messages": 20,
            "linger.ms": 2,
            # Longer than any outage here: a record is never given up by the clock.
            "message.timeout.ms": 300000,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 200,
            "retry.backoff.ms": 20,
            "socket.timeout.ms": 10000,
            "error_cb": self.on_error,
        })

    def on_error(self, error):
        print(f"{self.name}: {error}", file=sys.stderr, flush=True)
        if error.fatal():
            self.fatal = error

    def send(self, partition):
        seq = self.seqs[partition]
        padding = format(self.padding.getrandbits(4 * 96), "x") * self.padding.randrange(1, 4)
        value = f"{self.name} {partition} {seq} {padding}".encode()
        try:
            self.log.write(f"S {self.name} {partition} {seq} {zlib.crc32(value)}\n")
            self.producer.produce(self.topic, value, partition=partition,
                                  on_delivery=lambda error, message: self.answered(partition, seq, error, message))
        except BufferError:
            # The local queue is full during an outage: the same record is offered again later.
            return
        self.seqs[partition] += 1
        self.outstanding += 1

    def answered(self, partition, seq, error, message):
        self.outstanding -= 1
        if error is None:
            offset = message.offset()
            now, before = time.monotonic(), self.answered_at[partition]
            if before is not None:
                self.gaps[partition] = max(self.gaps[partition], now - before)
            self.answered_at[partition] = now
            known = offset if offset is not None and offset >= 0 else -1
            self.log.write(f"A {self.name} {partition} {seq} {known}\n")
        else:
            print(f"{self.name} {partition} {seq}: {error}", file=sys.stderr, flush=True)
            self.log.write(f"U {self.name} {partition} {seq} -\n")


def main():
    bootstrap, topic, partitions, path, rate = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
    names = sys.argv[6] if len(sys.argv) > 6 else "ab"
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()

    with open(path, "w", buffering=1) as log:
        writers = [Writer(name, bootstrap, topic, partitions, log) for name in names]
        started, sent = time.monotonic(), 0
        while not stop.is_set() and not any(w.fatal for w in writers):
            due = int((time.monotonic() - started) * rate)
            # An outage does not pile up work: what could not be sent in time is left out.
            sent = max(sent, due - 200)
            while sent < due:
                for writer in writers:
                    if writer.outstanding < rate * 2 / 3:
                        writer.send(writer.padding.randrange(partitions))
                sent += len(writers)
            for writer in writers:
                writer.producer.poll(0.002)
        deadline = time.monotonic() + FLUSH_LIMIT_SECONDS
        for writer in writers:
            writer.producer.flush(max(0.1, deadline - time.monotonic()))
        for writer in writers:
            for partition, gap in enumerate(writer.gaps):
                log.write(f"G {writer.name} {partition} {int(gap * 1000)} -\n")
        left = sum(w.outstanding for w in writers)
        fatal = [str(w.fatal) for w in writers if w.fatal]
    if fatal:
        sys.exit(print(f"fatal: {fatal}", file=sys.stderr) or 3)
    if left:
        sys.exit(print(f"{left} records without an answer", file=sys.stderr) or 4)


main()
