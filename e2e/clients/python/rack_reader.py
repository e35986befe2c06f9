"""confluent-kafka (librdkafka 2.x) in a rack: prints the offset of each record of partition 0, from the first one on, as it
comes, until it is killed. usage: rack_reader.py BOOTSTRAP TOPIC RACK"""

import sys

from confluent_kafka import Consumer, KafkaException, TopicPartition

bootstrap, topic, rack = sys.argv[1:]
consumer = Consumer({
    "bootstrap.servers": bootstrap,
    "group.id": "none",
    "client.rack": rack,
    "enable.auto.commit": False,
    "auto.offset.reset": "error",
    "reconnect.backoff.max.ms": 200,
})
consumer.assign([TopicPartition(topic, 0, 0)])
while True:
    message = consumer.poll(1.0)
    if message is None:
        continue
    if message.error():
        raise KafkaException(message.error())
    print(message.offset(), flush=True)
