"""What a golden cluster holds: `fill` writes it, `observe` prints all of it as one line of JSON.

`freeze` comes between the two when a golden cluster is made, `write` adds to one.

usage: golden.py fill|freeze|write|observe BOOTSTRAP
"""

import json
import time

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource as Resource, ConfigSource, NewTopic
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource

import cases

LIMIT_SECONDS = 60
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
GROUP = "golden-group"
CONSUMER_GROUP = "golden-consumers"
SESSION_TIMEOUT = "consumer.session.timeout.ms"
COMPACTED = "golden-compacted"
DYNAMIC = {
    ConfigSource.DYNAMIC_TOPIC_CONFIG,
    ConfigSource.DYNAMIC_BROKER_CONFIG,
    ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG,
}
BEGIN = 1_700_000_000_000
# Records outlive whoever opens the directory, years later.
FOR_EVER = {"retention.ms": "-1"}
KEYS = 7
ROUNDS = 12


def producer_for(bootstrap, codec, idempotent):
    return Producer({
        "bootstrap.servers": bootstrap,
        "compression.type": codec,
        "acks": "all",
        "enable.idempotence": idempotent,
        "linger.ms": 20,
        "batch.num.messages": 10,
    })


def flush(producer, failed):
    left = producer.flush(LIMIT_SECONDS)
    assert left == 0 and not failed, (left, failed)


def produce(producer, topic, partitions, numbers):
    failed = []

    def delivered(error, _message):
        if error is not None:
            failed.append(str(error))

    for n in numbers:
        key = None if n % 5 == 0 else f"key {n % KEYS}".encode()
        value = None if n % 11 == 10 else f"{topic} {n} ".encode() * (n % 13) + bytes([n % 256])
        headers = [("n", str(n).encode()), ("none", None)] if n % 3 == 0 else []
        producer.produce(topic, value, key, partition=n % partitions, timestamp=BEGIN + n, headers=headers,
                         on_delivery=delivered)
    flush(producer, failed)


def compacted(bootstrap):
    producer = producer_for(bootstrap, "lz4", True)
    failed = []
    for number in range(ROUNDS):
        for key in range(KEYS):
            # The last round deletes one key.
            value = None if number == ROUNDS - 1 and key == 0 else f"round {number} of {key}".encode()
            producer.produce(COMPACTED, value, f"key {key}".encode(), partition=0, timestamp=BEGIN + number,
                             on_delivery=lambda error, _: error and failed.append(str(error)))
        flush(producer, failed)
        # Another millisecond, another segment: the next record may close the one before.
        time.sleep(0.05)


def commit(bootstrap):
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": GROUP,
        "group.instance.id": "golden-instance",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    })
    topics = [f"golden-{codec}" for codec in CODECS]
    consumer.subscribe(topics)
    read = 0
    deadline = time.monotonic() + LIMIT_SECONDS
    while read < 240:
        assert time.monotonic() < deadline, f"read {read} records"
        message = consumer.poll(1.0)
        if message is not None:
            assert message.error() is None, message.error()
            read += 1
    places = [
        TopicPartition(place.topic, place.partition, place.offset, f"at {place.offset}")
        for place in consumer.position(consumer.assignment()) if place.offset >= 0
    ]
    consumer.commit(offsets=places, asynchronous=False)
    consumer.close()


def fill(bootstrap):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topics = [NewTopic(f"golden-{codec}", 2, 3, config=FOR_EVER) for codec in CODECS]
    topics += [
        NewTopic("golden-idempotent", 1, 3, config=FOR_EVER | {"max.message.bytes": "2000000"}),
        NewTopic("golden-moved", 2, 2, config=FOR_EVER | {"min.insync.replicas": "1"}),
        NewTopic(COMPACTED, 1, 3, config=FOR_EVER | {
            "cleanup.policy": "compact",
            "segment.ms": "1",
            "min.cleanable.dirty.ratio": "0.01",
            "delete.retention.ms": "9000000000000",
        }),
        NewTopic("golden-deleted", 1, 3),
    ]
    for created in admin.create_topics(topics).values():
        created.result(LIMIT_SECONDS)
    for codec in CODECS:
        produce(producer_for(bootstrap, codec, False), f"golden-{codec}", 2, range(60))
    produce(producer_for(bootstrap, "zstd", True), "golden-idempotent", 1, range(60))
    produce(producer_for(bootstrap, "none", False), "golden-moved", 2, range(60))
    compacted(bootstrap)
    commit(bootstrap)
    admin.delete_topics(["golden-deleted"])["golden-deleted"].result(LIMIT_SECONDS)
    kafka = KafkaAdminClient(bootstrap_servers=bootstrap)
    kafka.alter_configs([
        ConfigResource("TOPIC", "golden-none", {"message.timestamp.type": "CreateTime", "segment.bytes": "2097152"}),
        ConfigResource("BROKER", "2", {"leader.replication.throttled.rate": "123456789"}),
        ConfigResource("GROUP", CONSUMER_GROUP, {SESSION_TIMEOUT: "45000"}),
    ])
    kafka.close()


def freeze(bootstrap):
    """Keeps compaction, which has done its work, from doing more of it in every later run."""
    kafka = KafkaAdminClient(bootstrap_servers=bootstrap)
    kafka.alter_configs([ConfigResource("TOPIC", COMPACTED, {
        "min.compaction.lag.ms": "9000000000000",
        "max.compaction.lag.ms": "9000000000000",
        "segment.ms": "604800000",
    })])
    kafka.close()


def write(bootstrap):
    """More for the same topics, by a producer that has its id from this run."""
    for codec in CODECS:
        produce(producer_for(bootstrap, codec, False), f"golden-{codec}", 2, range(60, 80))
    produce(producer_for(bootstrap, "zstd", True), "golden-idempotent", 1, range(60, 80))


def read(bootstrap, places):
    """All records of these partitions."""
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        # Never joined: partitions are assigned by hand.
        "group.id": "unused",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "check.crcs": True,
    })
    consumer.assign([TopicPartition(topic, partition, 0) for topic, partition in places])
    records = {f"{topic}-{partition}": [] for topic, partition in places}
    unread = set(records)
    deadline = time.monotonic() + LIMIT_SECONDS
    while unread:
        assert time.monotonic() < deadline, f"stuck in {unread}"
        message = consumer.poll(1.0)
        if message is None:
            continue
        place = f"{message.topic()}-{message.partition()}"
        if message.error() is not None:
            assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
            unread.discard(place)
            continue
        headers = [[name, cases.hexed(value)] for name, value in message.headers() or []]
        records[place].append([message.offset(), message.timestamp()[1], cases.hexed(message.key()),
                               cases.hexed(message.value()), headers])
    consumer.close()
    return records


def observe(bootstrap):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    metadata = admin.list_topics(timeout=LIMIT_SECONDS)
    topics = sorted(topic for topic in metadata.topics if topic.startswith("golden-"))
    resources = [Resource(Resource.Type.TOPIC, topic) for topic in topics]
    resources += [Resource(Resource.Type.BROKER, str(broker)) for broker in metadata.brokers]
    configs = {}
    for resource in resources:
        # librdkafka takes one broker a call.
        [described] = admin.describe_configs([resource]).values()
        configs[f"{resource.restype.name} {resource.name}"] = {
            name: entry.value for name, entry in described.result(LIMIT_SECONDS).items()
            if ConfigSource(entry.source) in DYNAMIC
        }
    kafka = KafkaAdminClient(bootstrap_servers=bootstrap)
    group = kafka.describe_configs([ConfigResource("GROUP", CONSUMER_GROUP)], config_filter="all")
    [(name, entries)] = group["group"].items()
    configs[f"GROUP {name}"] = {SESSION_TIMEOUT: entries[SESSION_TIMEOUT]["value"]}
    offsets = kafka.list_group_offsets([GROUP])[GROUP]
    kafka.close()
    print(json.dumps({
        "cluster": metadata.cluster_id,
        "configs": configs,
        "offsets": {f"{place.topic}-{place.partition}": [at.offset, at.metadata] for place, at in offsets.items()},
        "records": read(bootstrap, [
            (topic, partition) for topic in topics for partition in metadata.topics[topic].partitions
        ]),
    }, sort_keys=True))


cases.run({"fill": fill, "freeze": freeze, "write": write, "observe": observe})
