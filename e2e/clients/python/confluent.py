"""confluent-kafka (librdkafka 2.x). `produce` has a plain and an idempotent form."""

import json
import time

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import cases

LIMIT_SECONDS = 60


def produce(bootstrap, path, *targets, idempotent=False):
    for codec, topic in (target.split("=", 1) for target in targets):
        producer = Producer({
            "bootstrap.servers": bootstrap,
            "compression.type": codec,
            "acks": "all",
            "enable.idempotence": idempotent,
            "linger.ms": 20,
        })
        failed = []
        sent = 0
        for key, value, timestamp, headers in cases.load(path):
            producer.produce(topic, value, key, partition=0, timestamp=timestamp, headers=headers,
                             on_delivery=lambda error, message: error and failed.append(str(error)))
            sent += 1
        left = producer.flush(LIMIT_SECONDS)
        assert sent > 0 and left == 0 and not failed, (codec, sent, left, failed)


def consumer_for(bootstrap):
    return Consumer({
        "bootstrap.servers": bootstrap,
        # Never joined: partitions are assigned by hand.
        "group.id": "unused",
        "enable.auto.commit": False,
        "check.crcs": True,
    })


def consume(bootstrap, *wanted):
    consumer = consumer_for(bootstrap)
    for topic, start, end in cases.ranges(wanted):
        # Assigned at the beginning, then moved, so that seek has something to do.
        consumer.assign([TopicPartition(topic, 0, 0)])
        deadline = time.monotonic() + LIMIT_SECONDS
        moved = start == 0
        position = start
        while position < end:
            assert time.monotonic() < deadline, f"stuck at {topic} {position}, wanted {end}"
            message = consumer.poll(1.0)
            if message is None:
                continue
            assert message.error() is None, message.error()
            if not moved:
                consumer.seek(TopicPartition(topic, 0, start))
                moved = True
                continue
            if message.offset() < start:
                continue
            cases.show(topic, message.offset(), message.timestamp()[1], message.key(), message.value(),
                       message.headers() or [])
            position = message.offset() + 1
    consumer.close()


def times(bootstrap, topic, *timestamps):
    consumer = consumer_for(bootstrap)
    found = []
    for timestamp in timestamps:
        [partition] = consumer.offsets_for_times([TopicPartition(topic, 0, int(timestamp))], LIMIT_SECONDS)
        assert partition.error is None, partition.error
        # librdkafka says END (-1) where no record is at or after the timestamp.
        found.append(partition.offset)
    consumer.close()
    print(json.dumps(found))


def create(bootstrap, topic, partitions, *configs):
    settings = dict(config.split("=", 1) for config in configs)
    new = NewTopic(topic, num_partitions=int(partitions), replication_factor=1, config=settings)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([new])[topic].result(LIMIT_SECONDS)


cases.run({
    "produce": produce,
    "produce-idempotent": lambda *arguments: produce(*arguments, idempotent=True),
    "consume": consume,
    "times": times,
    "create": create,
})
