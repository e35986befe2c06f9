"""kafka-python as a session. usage: kafka_python_session.py BOOTSTRAP"""

import sys

from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition, errors
from kafka.admin import ConfigResource
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.errors import BrokerResponseError, NoError
from kafka.structs import OffsetAndMetadata

from session import LIMIT_SECONDS, Member, Refused, Writer, label, places, serve

STRATEGIES = {
    "range": RangePartitionAssignor,
    "roundrobin": RoundRobinPartitionAssignor,
    "cooperative": CooperativeStickyAssignor,
}


# A poll that ends while the answer of a JoinGroup is on its way loses it: kafka-python 3.0.12 then thinks that it is in
# the group, has no partitions and sends no heartbeats. A join takes a few milliseconds.
POLL_MILLISECONDS = 1000


class Listener(ConsumerRebalanceListener):
    def __init__(self, member):
        self.member = member

    def on_partitions_assigned(self, assigned):
        self.member.assigned(list(assigned))

    def on_partitions_revoked(self, revoked):
        self.member.revoked(list(revoked))


class KafkaPython(Member):
    def open(self):
        self.consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap,
            group_id=self.group,
            client_id=f"client-{self.label}",
            group_instance_id=self.instance,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            partition_assignment_strategy=(STRATEGIES[self.protocol],),
            session_timeout_ms=6000,
            heartbeat_interval_ms=500,
        )
        self.consumer.subscribe([self.topic], listener=Listener(self))

    def poll(self):
        for records in self.consumer.poll(POLL_MILLISECONDS).values():
            for record in records:
                self.read(record.topic, record.partition, record.offset)

    def commit(self, offsets):
        wanted = {TopicPartition(*place): OffsetAndMetadata(offset, "", -1) for place, offset in offsets.items()}
        try:
            self.consumer.commit(wanted)
        except BrokerResponseError as error:
            raise Refused(error.errno) from error

    def close(self):
        self.consumer.close()


class KafkaPythonWriter(Writer):
    def open(self):
        self.producer = KafkaProducer(bootstrap_servers=self.bootstrap, acks="all", enable_idempotence=True)
        self.sent = []

    def send(self, number, value):
        # Callbacks of kafka-python swallow what they raise: the answers are taken in order here.
        self.sent.append((number, self.producer.send(self.topic, value)))
        while self.sent and self.sent[0][1].is_done:
            self.answer(*self.sent.pop(0))

    def answer(self, number, future):
        record = future.get(timeout=LIMIT_SECONDS)
        self.wrote(number, record.topic, record.partition, record.offset)

    def close(self):
        self.producer.flush(LIMIT_SECONDS)
        for number, future in self.sent:
            self.answer(number, future)


def check(results):
    for error in results.values():
        if error is not NoError:
            raise Refused(error.errno)


def check_text(result):
    """Some answers come as text: `[Error 40] ...`."""
    if result not in (None, "OK"):
        raise Refused(int(result.split()[1].rstrip("]")))


def topic_config(topic, configs=None):
    return ConfigResource("TOPIC", topic, configs)


class Admin:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.client = KafkaAdminClient(bootstrap_servers=bootstrap)

    def groups(self):
        return {group["group_id"]: group["group_state"] for group in self.client.list_groups()}

    def describe(self, group):
        found = self.client.describe_groups([group])[group]
        check_text(found["error"])
        return {
            "state": found["group_state"],
            "protocol": found["protocol_data"],
            "members": [{
                "id": member["member_id"],
                "client": member["client_id"],
                "host": member["client_host"],
                "instance": member["group_instance_id"],
                "partitions": [
                    label(topic["topic"], partition)
                    for topic in member["member_assignment"]["assigned_partitions"]
                    for partition in topic["partitions"]
                ],
            } for member in found["members"]],
        }

    def committed(self, group):
        found = self.client.list_group_offsets(group)[group]
        return {label(*place): committed.offset for place, committed in found.items()}

    def reset(self, group, *words):
        wanted = {
            TopicPartition(topic, partition): OffsetAndMetadata(offset, "", -1)
            for topic, partition, offset in places(words)
        }
        check(self.client.alter_group_offsets(group, wanted))

    def forget(self, group, *words):
        check(self.client.delete_group_offsets(group, [TopicPartition(*place) for place in places(words)]))

    def drop(self, group):
        done = self.client.delete_groups([group])[group]
        if done != "OK":
            raise Refused(getattr(errors, done).errno)

    def grow(self, topic, partitions):
        self.client.create_partitions({topic: int(partitions)})

    def configs(self, topic):
        found = self.client.describe_configs([topic_config(topic)], config_filter="all")
        return {name: entry["value"] for name, entry in found["topic"][topic].items()}

    def alter(self, topic, operation, entry):
        name, _, value = entry.partition("=")
        configs = {name: (operation.upper(), value or None)}
        done = self.client.alter_configs([topic_config(topic, configs)], raise_on_unknown=False)
        check_text(done["topic"][topic])

    def trim(self, *words):
        wanted = {TopicPartition(topic, partition): offset for topic, partition, offset in places(words)}
        done = self.client.delete_records(wanted)
        return {label(*place): result["low_watermark"] for place, result in done.items()}

    def remove(self, topic):
        self.client.delete_topics([topic])


serve(KafkaPython, Admin(sys.argv[1]), KafkaPythonWriter, (Refused, BrokerResponseError))
