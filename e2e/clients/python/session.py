"""A session: commands from standard input, events to standard output. See ../README.md.

Each member of a group is a thread of its own; the admin commands run on the main thread.
"""

import json
import os
import queue
import sys
import threading
import traceback

LIMIT_SECONDS = 60
POLL_SECONDS = 0.05
WRITE_SECONDS = 0.02

printing = threading.Lock()


def show(**event):
    with printing:
        print(json.dumps(event), flush=True)


class Refused(Exception):
    """The broker said no, with Kafka's error code."""

    def __init__(self, errno):
        super().__init__(f"error {errno}")
        self.errno = errno


def label(topic, partition):
    return f"{topic}-{partition}"


def places(words):
    """TOPIC:PARTITION:OFFSET or TOPIC:PARTITION."""
    for word in words:
        topic, *numbers = word.split(":")
        yield topic, *map(int, numbers)


class Member(threading.Thread):
    """A consumer in a group. The client behind it has open, poll, commit and close."""

    def __init__(self, name, bootstrap, group, topic, protocol, instance=None):
        super().__init__(daemon=True)
        self.label, self.bootstrap, self.group = name, bootstrap, group
        self.topic, self.protocol, self.instance = topic, protocol, instance
        self.commands = queue.Queue()
        self.next = {}

    def run(self):
        try:
            self.open()
            while self.obey():
                self.poll()
            self.close()
            self.tell("left")
        except Refused as refused:
            self.tell("failed", code=refused.errno)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def obey(self):
        if self.commands.empty():
            return True
        if self.commands.get() == "leave":
            return False
        offsets = dict(self.next)
        try:
            self.commit(offsets)
        except Refused as refused:
            self.tell("refused", code=refused.errno)
        else:
            self.tell("committed", offsets={label(*place): offset for place, offset in offsets.items()})
        return True

    def tell(self, event, **more):
        show(name=self.label, event=event, **more)

    def assigned(self, partitions):
        self.tell("assigned", partitions=[label(*place) for place in partitions])

    def revoked(self, partitions):
        for place in partitions:
            self.next.pop(place, None)
        self.tell("revoked", partitions=[label(*place) for place in partitions])

    def read(self, topic, partition, offset):
        self.next[topic, partition] = offset + 1
        self.tell("read", record=[label(topic, partition), offset])


class Writer(threading.Thread):
    """Writes numbers to a topic until it is told to leave. The client behind it has open, send and close; send calls
    `wrote` once the record is acknowledged."""

    def __init__(self, name, bootstrap, topic):
        super().__init__(daemon=True)
        self.label, self.bootstrap, self.topic = name, bootstrap, topic
        self.leaving = threading.Event()

    def run(self):
        try:
            self.open()
            number = 0
            while not self.leaving.wait(WRITE_SECONDS):
                self.send(number, f"{self.label} {number}".encode())
                number += 1
            self.close()
            show(name=self.label, event="left")
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def wrote(self, number, topic, partition, offset):
        show(name=self.label, event="wrote", number=number, record=[label(topic, partition), offset])


def serve(member, admin, writer, refusals=Refused):
    """Runs until standard input ends.

    `member` makes a Member, `writer` a Writer, `admin` has a method per admin command, `refusals` are exceptions that have the broker's
    error code as errno.
    """
    members, writers = {}, {}
    for line in sys.stdin:
        command, *words = line.split()
        if command == "join":
            members[words[0]] = member(words[0], admin.bootstrap, *words[1:])
            members[words[0]].start()
        elif command == "write":
            writers[words[0]] = writer(words[0], admin.bootstrap, *words[1:])
            writers[words[0]].start()
        elif command == "leave" and words[0] in writers:
            writers[words[0]].leaving.set()
        elif command in ("commit", "leave"):
            members[words[0]].commands.put(command)
        else:
            try:
                show(event="answer", answer=getattr(admin, command)(*words))
            except refusals as refused:
                show(event="refused", code=refused.errno)
