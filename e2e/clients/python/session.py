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


def serve(member, admin, refusals=Refused):
    """Runs until standard input ends.

    `member` makes a Member, `admin` has a method per admin command, `refusals` are exceptions that have the broker's
    error code as errno.
    """
    members = {}
    for line in sys.stdin:
        command, *words = line.split()
        if command == "join":
            members[words[0]] = member(words[0], admin.bootstrap, *words[1:])
            members[words[0]].start()
        elif command in ("commit", "leave"):
            members[words[0]].commands.put(command)
        else:
            try:
                show(event="answer", answer=getattr(admin, command)(*words))
            except refusals as refused:
                show(event="refused", code=refused.errno)
