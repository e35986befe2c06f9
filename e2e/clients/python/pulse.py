"""Sends a record to every partition again and again, and says when each was answered: how long a partition was away.

usage: pulse.py BOOTSTRAP TOPIC PARTITIONS PAUSE_MS LOG [NAME=VALUE]...

An idempotent producer of confluent-kafka as it comes, but that it waits for nothing before it sends, and for no more than
two seconds for an answer: how long a client waits for a broker that hangs is for the client to say. Further settings of
librdkafka come last. Log lines:
    partition sent answered         seconds of the monotonic clock
    partition sent -                failed for good
Ends when standard input does.
"""

import sys
import threading
import time

from confluent_kafka import Producer


def main():
    bootstrap, topic, partitions, pause, path = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    producer = Producer({
        "bootstrap.servers": bootstrap,
        "enable.idempotence": True,
        "linger.ms": 0,
        "socket.timeout.ms": 2000,
        **dict(setting.split("=", 1) for setting in sys.argv[6:]),
    })
    with open(path, "w", buffering=1) as log:
        def send(partition):
            sent = time.monotonic()

            def answered(error, _):
                if error is not None:
                    print(partition, error, file=sys.stderr, flush=True)
                log.write(f"{partition} {sent:.4f} {'-' if error else format(time.monotonic(), '.4f')}\n")

            producer.produce(topic, b"pulse", partition=partition, on_delivery=answered)

        due = time.monotonic()
        while not stop.is_set():
            for partition in range(partitions):
                send(partition)
            due = max(due + pause / 1000, time.monotonic() - 1)
            while (left := due - time.monotonic()) > 0:
                producer.poll(left)
            producer.poll(0)
        producer.flush(60)


main()
