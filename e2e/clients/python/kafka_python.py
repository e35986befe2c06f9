"""kafka-python, all of it Python."""

import json
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

import cases

LIMIT_SECONDS = 60


def produce(bootstrap, path, *targets):
    for codec, topic in (target.split("=", 1) for target in targets):
        producer = KafkaProducer(
            bootstrap_servers=bootstrap,
            compression_type=None if codec == "none" else codec,
            acks="all",
            linger_ms=20,
        )
        futures = [
            producer.send(topic, value, key, headers, partition=0, timestamp_ms=timestamp)
            for key, value, timestamp, headers in cases.load(path)
        ]
        producer.flush(LIMIT_SECONDS)
        offsets = [future.get(LIMIT_SECONDS).offset for future in futures]
        assert offsets and offsets == list(range(offsets[0], offsets[0] + len(offsets))), offsets
        producer.close()


def consume(bootstrap, *wanted):
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=None, check_crcs=True)
    for topic, start, end in cases.ranges(wanted):
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, start)
        deadline = time.monotonic() + LIMIT_SECONDS
        position = start
        while position < end:
            assert time.monotonic() < deadline, f"stuck at {topic} {position}, wanted {end}"
            for record in consumer.poll(1000).get(partition, []):
                if position < end:
                    cases.show(topic, record.offset, record.timestamp, record.key, record.value, record.headers)
                    position = record.offset + 1
    consumer.close()


def times(bootstrap, topic, *timestamps):
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=None)
    partition = TopicPartition(topic, 0)
    answers = [consumer.offsets_for_times({partition: int(timestamp)})[partition] for timestamp in timestamps]
    consumer.close()
    print(json.dumps([-1 if answer is None else answer.offset for answer in answers]))


def create(bootstrap, topic, partitions, *configs):
    settings = dict(config.split("=", 1) for config in configs)
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic(topic, int(partitions), 1, topic_configs=settings)])
    admin.close()


cases.run({"produce": produce, "consume": consume, "times": times, "create": create})
