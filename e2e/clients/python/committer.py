"""Commits offsets without a pause, through every fault, and logs what it was told.

usage: committer.py BOOTSTRAP TOPIC PARTITIONS LOG

Two members share the partitions in the group `members`, and two others, of KIP-848, in the group `consumers`; the groups
`simple-0` to `simple-3` have no members, only offsets. Each commit is one higher than the last of its group and partition, whoever sent that. Log lines, in order:
    S group partition offset     about to be sent
    A group partition offset     acknowledged
What is refused or gets no answer has no second line. Ends when standard input does.
"""

import sys
import threading
import time
import traceback

from confluent_kafka import Consumer, KafkaException, TopicPartition

MEMBERS = 2
SIMPLE_GROUPS = 4
# A commit without an answer is tried again with the next offset, not at once.
PAUSE_SECONDS = 0.02


class Log:
    def __init__(self, path):
        self.file = open(path, "w", buffering=1)
        self.lock = threading.Lock()
        self.next = {}

    def send(self, group, partition):
        with self.lock:
            offset = self.next.get((group, partition), 0) + 1
            self.next[group, partition] = offset
            self.file.write(f"S {group} {partition} {offset}\n")
        return offset

    def acknowledge(self, group, partition, offset):
        with self.lock:
            self.file.write(f"A {group} {partition} {offset}\n")


class Committer(threading.Thread):
    def __init__(self, log, stop, bootstrap, group, topic, partitions):
        super().__init__()
        self.log, self.stop, self.group, self.topic = log, stop, group, topic
        self.owned = set(partitions)
        config = {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 200,
            "retry.backoff.ms": 20,
            "socket.timeout.ms": 5000,
        }
        if group == "consumers":
            config["group.protocol"] = "consumer"
        else:
            config |= {"session.timeout.ms": 10000, "heartbeat.interval.ms": 500}
        self.consumer = Consumer(config)
        if not partitions:
            self.consumer.subscribe([topic], on_assign=self.assign, on_revoke=self.revoke, on_lost=self.revoke)

    def assign(self, _, partitions):
        self.owned |= {p.partition for p in partitions}

    def revoke(self, _, partitions):
        self.owned -= {p.partition for p in partitions}

    def run(self):
        try:
            while not self.stop.is_set():
                self.consumer.poll(0.005)
                if not (self.owned and self.commit()):
                    time.sleep(PAUSE_SECONDS)
            self.consumer.close()
        except BaseException:
            traceback.print_exc()

    def commit(self):
        offsets = [TopicPartition(self.topic, p, self.log.send(self.group, p)) for p in sorted(self.owned)]
        try:
            done = self.consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            print(self.group, error, file=sys.stderr, flush=True)
            return False
        for partition in done:
            if partition.error is None:
                self.log.acknowledge(self.group, partition.partition, partition.offset)
        return True


def main():
    bootstrap, topic, partitions, path = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    stop, log = threading.Event(), Log(path)
    simple = [f"simple-{n}" for n in range(SIMPLE_GROUPS)]
    threads = [Committer(log, stop, bootstrap, group, topic, []) for group in ("members", "consumers")
               for _ in range(MEMBERS)]
    threads += [Committer(log, stop, bootstrap, group, topic, range(partitions)) for group in simple]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()


main()
