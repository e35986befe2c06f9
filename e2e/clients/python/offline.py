"""kafka-python: prints the offline replicas of each partition of a topic, a line `PARTITION: [IDS]` each.
usage: offline.py BOOTSTRAP TOPIC"""

import sys

from kafka import KafkaAdminClient

bootstrap, topic = sys.argv[1:]
admin = KafkaAdminClient(bootstrap_servers=bootstrap.split(","))
for described in admin.describe_topic_partitions([topic])["topics"]:
    for partition in described["partitions"]:
        print(f"{partition['partition_index']}: {sorted(partition['offline_replicas'])}")
