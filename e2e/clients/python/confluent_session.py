"""confluent-kafka (librdkafka 2.x) as a session. usage: confluent_session.py BOOTSTRAP"""

import sys

from confluent_kafka import (
    Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, ResourceType,
)

from session import LIMIT_SECONDS, POLL_SECONDS, Member, Refused, Writer, label, places, serve

STRATEGIES = {"range": "range", "roundrobin": "roundrobin", "cooperative": "cooperative-sticky"}


def pairs(partitions):
    return [(partition.topic, partition.partition) for partition in partitions]


class Confluent(Member):
    def open(self):
        config = {
            "bootstrap.servers": self.bootstrap,
            "group.id": self.group,
            "client.id": f"client-{self.label}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "reconnect.backoff.max.ms": 200,
        }
        if self.protocol == "consumer":
            config["group.protocol"] = "consumer"
        else:
            config["partition.assignment.strategy"] = STRATEGIES[self.protocol]
            config["session.timeout.ms"] = 6000
            config["heartbeat.interval.ms"] = 500
        if self.instance:
            config["group.instance.id"] = self.instance
        self.consumer = Consumer(config)
        self.consumer.subscribe(
            [self.topic],
            on_assign=lambda _, partitions: self.assigned(pairs(partitions)),
            on_revoke=lambda _, partitions: self.revoked(pairs(partitions)),
            on_lost=lambda _, partitions: self.revoked(pairs(partitions)),
        )

    def poll(self):
        message = self.consumer.poll(POLL_SECONDS)
        if message is None:
            return
        if message.error():
            # A group that changes its protocol answers those who wait for it to rebalance so; librdkafka says so and
            # joins again.
            if message.error().code() == KafkaError.REBALANCE_IN_PROGRESS:
                return
            raise Refused(code_of(message.error()))
        self.read(message.topic(), message.partition(), message.offset())

    def commit(self, offsets):
        wanted = [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
        try:
            done = self.consumer.commit(offsets=wanted, asynchronous=False)
        except KafkaException as error:
            raise Refused(error.args[0].code()) from error
        check(done)

    def close(self):
        self.consumer.close()


class ConfluentWriter(Writer):
    def open(self):
        self.producer = Producer({"bootstrap.servers": self.bootstrap, "enable.idempotence": True})

    def send(self, number, value):
        def answered(error, message):
            if error is not None:
                raise KafkaException(error)
            self.wrote(number, message.topic(), message.partition(), message.offset())

        self.producer.produce(self.topic, value, on_delivery=answered)
        self.producer.poll(0)

    def close(self):
        self.producer.flush(LIMIT_SECONDS)


def code_of(error):
    """The broker's code, which a fatal error has in its text only."""
    if error.code() != KafkaError._FATAL:
        return error.code()
    causes = (code for code in range(1, 200) if f": {KafkaError(code).str()}" in error.str())
    return next(causes, error.code())


def check(partitions):
    for partition in partitions:
        if partition.error is not None:
            raise Refused(partition.error.code())


def answer(futures):
    [future] = futures.values()
    try:
        return future.result(LIMIT_SECONDS)
    except KafkaException as error:
        raise Refused(error.args[0].code()) from error


def topic_config(topic):
    return ConfigResource(ResourceType.TOPIC, topic)


class Admin:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.client = AdminClient({"bootstrap.servers": bootstrap})

    def groups(self):
        listed = self.client.list_consumer_groups().result(LIMIT_SECONDS)
        assert not listed.errors, listed.errors
        return {group.group_id: group.state.name.capitalize() for group in listed.valid}

    def describe(self, group):
        found = answer(self.client.describe_consumer_groups([group]))
        return {
            "state": found.state.name.capitalize(),
            "protocol": found.partition_assignor,
            "members": [{
                "id": member.member_id,
                "client": member.client_id,
                "host": member.host,
                "instance": member.group_instance_id,
                "partitions": [label(*place) for place in pairs(member.assignment.topic_partitions)],
            } for member in found.members],
        }

    def committed(self, group):
        found = answer(self.client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]))
        check(found.topic_partitions)
        return {label(p.topic, p.partition): p.offset for p in found.topic_partitions}

    def reset(self, group, *words):
        wanted = [TopicPartition(*place) for place in places(words)]
        done = answer(self.client.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, wanted)]))
        check(done.topic_partitions)

    def drop(self, group):
        answer(self.client.delete_consumer_groups([group]))

    def grow(self, topic, partitions):
        answer(self.client.create_partitions([NewPartitions(topic, int(partitions))]))

    def configs(self, topic):
        found = answer(self.client.describe_configs([topic_config(topic)]))
        return {name: entry.value for name, entry in found.items()}

    def alter(self, topic, operation, entry):
        name, _, value = entry.partition("=")
        resource = topic_config(topic)
        operation = AlterConfigOpType[operation.upper()]
        resource.add_incremental_config(ConfigEntry(name, value or None, incremental_operation=operation))
        answer(self.client.incremental_alter_configs([resource]))

    def trim(self, *words):
        done = self.client.delete_records([TopicPartition(*place) for place in places(words)])
        return {label(p.topic, p.partition): answer({p: future}).low_watermark for p, future in done.items()}

    def remove(self, topic):
        answer(self.client.delete_topics([topic]))


serve(Confluent, Admin(sys.argv[1]), ConfluentWriter)
