// The Java client and the command line tools of Apache Kafka as a session: see ../README.md.
// usage: Session.java BOOTSTRAP

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.MemberDescription;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ApiException;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.Exit;

public class Session {
    private static final ObjectMapper JSON = new ObjectMapper();
    /** Kept, because the tools write to another one. */
    private static final PrintStream OUT = System.out;

    public static void main(String[] args) throws Exception {
        var members = new HashMap<String, Member>();
        var writers = new HashMap<String, Writer>();
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try (Admin client = Admin.create(Map.of("bootstrap.servers", args[0]))) {
            var commands = new Commands(client);
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                List<String> words = Arrays.asList(line.split(" "));
                List<String> rest = words.subList(1, words.size());
                switch (words.get(0)) {
                    case "join" -> {
                        members.put(rest.get(0), new Member(args[0], rest));
                        members.get(rest.get(0)).start();
                    }
                    case "write" -> {
                        writers.put(rest.get(0), new Writer(args[0], rest));
                        writers.get(rest.get(0)).start();
                    }
                    case "commit", "leave" -> {
                        if (writers.containsKey(rest.get(0))) {
                            writers.get(rest.get(0)).leaving = true;
                            continue;
                        }
                        members.get(rest.get(0)).commands.add(words.get(0));
                    }
                    case "tool" -> show(null, "answer", "answer", tool(rest));
                    default -> answer(commands, words.get(0), rest);
                }
            }
        }
        Runtime.getRuntime().halt(0);
    }

    private static void answer(Commands commands, String command, List<String> words) throws Exception {
        try {
            show(null, "answer", "answer", commands.run(command, words));
        } catch (ExecutionException e) {
            if (!(e.getCause() instanceof ApiException)) {
                throw e;
            }
            show(null, "refused", "code", Errors.forException(e.getCause()).code());
        }
    }

    /** An event with pairs of a key and a value. */
    static synchronized void show(String name, String event, Object... pairs) {
        Map<String, Object> line = new LinkedHashMap<>();
        if (name != null) {
            line.put("name", name);
        }
        line.put("event", event);
        for (int i = 0; i < pairs.length; i += 2) {
            line.put((String) pairs[i], pairs[i + 1]);
        }
        try {
            OUT.println(JSON.writeValueAsString(line));
            OUT.flush();
        } catch (Exception e) {
            throw new IllegalStateException(e);
        }
    }

    /** Writes numbers to a topic until it is told to leave, on a thread of its own. */
    private static final class Writer extends Thread {
        volatile boolean leaving;
        private final String bootstrap;
        private final String label;
        private final String topic;

        Writer(String bootstrap, List<String> words) {
            this.bootstrap = bootstrap;
            label = words.get(0);
            topic = words.get(1);
            setDaemon(true);
        }

        @Override
        public void run() {
            var bytes = new ByteArraySerializer();
            try (var producer = new KafkaProducer<>(Map.<String, Object>of("bootstrap.servers", bootstrap), bytes, bytes)) {
                for (int number = 0; !leaving; number++) {
                    int own = number;
                    byte[] value = (label + " " + number).getBytes(StandardCharsets.UTF_8);
                    producer.send(new ProducerRecord<>(topic, value), (record, error) -> {
                        if (error != null) {
                            error.printStackTrace();
                            Runtime.getRuntime().halt(1);
                        }
                        var partition = new TopicPartition(record.topic(), record.partition());
                        show(label, "wrote", "record", List.of(partition.toString(), record.offset()), "number", own);
                    });
                    Thread.sleep(20);
                }
            } catch (Throwable e) {
                e.printStackTrace();
                Runtime.getRuntime().halt(1);
            }
            show(label, "left", "topic", topic);
        }
    }

    /** A consumer in a group, on a thread of its own. */
    private static final class Member extends Thread implements ConsumerRebalanceListener {
        final BlockingQueue<String> commands = new LinkedBlockingQueue<>();
        private final String label;
        private final String topic;
        private final Map<String, Object> config = new HashMap<>();
        private final Map<TopicPartition, OffsetAndMetadata> next = new HashMap<>();

        Member(String bootstrap, List<String> words) {
            label = words.get(0);
            topic = words.get(2);
            config.putAll(Map.of("bootstrap.servers", bootstrap, "group.id", words.get(1), "client.id", "client-" + label,
                "auto.offset.reset", "earliest", "enable.auto.commit", false, "reconnect.backoff.max.ms", 200));
            if (words.get(3).equals("consumer")) {
                config.put("group.protocol", "consumer");
            } else {
                config.putAll(Map.of("partition.assignment.strategy", strategy(words.get(3)),
                    "group.protocol", "classic", "session.timeout.ms", 6000, "heartbeat.interval.ms", 500));
            }
            if (words.size() > 4) {
                config.put("group.instance.id", words.get(4));
            }
            setDaemon(true);
        }

        private static String strategy(String protocol) {
            String start = "org.apache.kafka.clients.consumer.";
            return switch (protocol) {
                case "range" -> start + "RangeAssignor";
                case "roundrobin" -> start + "RoundRobinAssignor";
                case "cooperative" -> start + "CooperativeStickyAssignor";
                default -> throw new IllegalArgumentException(protocol);
            };
        }

        @Override
        public void run() {
            var bytes = new ByteArrayDeserializer();
            try (var consumer = new KafkaConsumer<>(config, bytes, bytes)) {
                consumer.subscribe(List.of(topic), this);
                for (String command = null; !"leave".equals(command); command = commands.poll()) {
                    if ("commit".equals(command)) {
                        commit(consumer);
                    }
                    for (var record : consumer.poll(Duration.ofMillis(50))) {
                        var partition = new TopicPartition(record.topic(), record.partition());
                        next.put(partition, new OffsetAndMetadata(record.offset() + 1));
                        show(label, "read", "record", List.of(partition.toString(), record.offset()));
                    }
                }
            } catch (ApiException e) {
                show(label, "failed", "code", Errors.forException(e).code());
                return;
            } catch (Throwable e) {
                e.printStackTrace();
                Runtime.getRuntime().halt(1);
            }
            show(label, "left", "group", config.get("group.id"));
        }

        private void commit(KafkaConsumer<byte[], byte[]> consumer) {
            try {
                consumer.commitSync(next);
            } catch (ApiException e) {
                show(label, "refused", "code", Errors.forException(e).code());
                return;
            }
            show(label, "committed", "offsets", offsets(next));
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            show(label, "assigned", "partitions", names(partitions));
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            next.keySet().removeAll(partitions);
            show(label, "revoked", "partitions", names(partitions));
        }
    }

    private static List<String> names(Collection<TopicPartition> partitions) {
        return partitions.stream().map(TopicPartition::toString).toList();
    }

    private static Map<String, Long> offsets(Map<TopicPartition, OffsetAndMetadata> committed) {
        Map<String, Long> offsets = new TreeMap<>();
        committed.forEach((partition, offset) -> offsets.put(partition.toString(), offset.offset()));
        return offsets;
    }

    /** The admin commands. */
    private record Commands(Admin client) {
        Object run(String command, List<String> words) throws Exception {
            String first = words.isEmpty() ? null : words.get(0);
            List<String> rest = words.isEmpty() ? words : words.subList(1, words.size());
            return switch (command) {
                case "groups" -> groups();
                case "describe" -> describe(first);
                case "committed" -> offsets(done(client.listConsumerGroupOffsets(first).partitionsToOffsetAndMetadata()));
                case "reset" -> reset(first, rest);
                case "forget" -> done(client.deleteConsumerGroupOffsets(first, Set.copyOf(places(rest).keySet())).all());
                case "drop" -> done(client.deleteConsumerGroups(List.of(first)).all());
                case "grow" -> done(client.createPartitions(
                    Map.of(first, NewPartitions.increaseTo(Integer.parseInt(rest.get(0))))).all());
                case "configs" -> configs(first);
                case "alter" -> alter(first, rest.get(0), rest.get(1));
                case "trim" -> trim(words);
                case "remove" -> done(client.deleteTopics(List.of(first)).all());
                default -> throw new IllegalArgumentException(command);
            };
        }

        private static <T> T done(KafkaFuture<T> future) throws Exception {
            return future.get();
        }

        private Object groups() throws Exception {
            Map<String, String> states = new TreeMap<>();
            for (var group : done(client.listGroups(ListGroupsOptions.forConsumerGroups()).all())) {
                states.put(group.groupId(), group.groupState().orElseThrow().toString());
            }
            return states;
        }

        private Object describe(String group) throws Exception {
            var found = done(client.describeConsumerGroups(List.of(group)).describedGroups().get(group));
            List<Object> members = new ArrayList<>();
            for (MemberDescription member : found.members()) {
                Map<String, Object> shown = new HashMap<>();
                shown.put("id", member.consumerId());
                shown.put("client", member.clientId());
                shown.put("host", member.host());
                shown.put("instance", member.groupInstanceId().orElse(null));
                shown.put("partitions", names(member.assignment().topicPartitions()));
                members.add(shown);
            }
            return Map.of("state", found.groupState().toString(), "protocol", found.partitionAssignor(), "members", members);
        }

        private Object reset(String group, List<String> words) throws Exception {
            Map<TopicPartition, OffsetAndMetadata> wanted = new HashMap<>();
            places(words).forEach((partition, offset) -> wanted.put(partition, new OffsetAndMetadata(offset)));
            return done(client.alterConsumerGroupOffsets(group, wanted).all());
        }

        private Object configs(String topic) throws Exception {
            var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            Map<String, String> values = new TreeMap<>();
            done(client.describeConfigs(List.of(resource)).all()).get(resource).entries()
                .forEach(entry -> values.put(entry.name(), entry.value()));
            return values;
        }

        private Object alter(String topic, String operation, String entry) throws Exception {
            String[] parts = entry.split("=", 2);
            var wanted = new ConfigEntry(parts[0], parts.length == 1 ? null : parts[1]);
            var op = new AlterConfigOp(wanted, AlterConfigOp.OpType.valueOf(operation.toUpperCase()));
            var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            return done(client.incrementalAlterConfigs(Map.of(resource, List.of(op))).all());
        }

        private Object trim(List<String> words) throws Exception {
            Map<TopicPartition, RecordsToDelete> wanted = new HashMap<>();
            places(words).forEach((partition, offset) -> wanted.put(partition, RecordsToDelete.beforeOffset(offset)));
            Map<String, Long> low = new TreeMap<>();
            for (var entry : client.deleteRecords(wanted).lowWatermarks().entrySet()) {
                low.put(entry.getKey().toString(), done(entry.getValue()).lowWatermark());
            }
            return low;
        }

        /** TOPIC:PARTITION:OFFSET, or TOPIC:PARTITION with an offset of 0. */
        private static Map<TopicPartition, Long> places(List<String> words) {
            Map<TopicPartition, Long> places = new HashMap<>();
            for (String word : words) {
                String[] parts = word.split(":");
                var partition = new TopicPartition(parts[0], Integer.parseInt(parts[1]));
                places.put(partition, parts.length > 2 ? Long.parseLong(parts[2]) : 0L);
            }
            return places;
        }
    }

    private static final class Ended extends RuntimeException {
        Ended() {
            super(null, null, false, false);
        }
    }

    /** Runs the main method of a tool as it is: its exit status and what it printed. */
    private static Object tool(List<String> words) throws Exception {
        var out = new ByteArrayOutputStream();
        var err = new ByteArrayOutputStream();
        PrintStream errBefore = System.err;
        // Some tools catch what is thrown here and exit once more: the first status is theirs.
        List<Integer> statuses = new ArrayList<>();
        Exit.Procedure exit = (status, message) -> {
            statuses.add(status);
            throw new Ended();
        };
        Exit.setExitProcedure(exit);
        Exit.setHaltProcedure(exit);
        System.setOut(new PrintStream(out, true, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(err, true, StandardCharsets.UTF_8));
        try {
            String[] args = words.subList(1, words.size()).toArray(String[]::new);
            Class.forName(words.get(0)).getMethod("main", String[].class).invoke(null, (Object) args);
        } catch (java.lang.reflect.InvocationTargetException e) {
            if (!(e.getCause() instanceof Ended)) {
                e.getCause().printStackTrace(System.err);
                statuses.add(1);
            }
        } finally {
            System.setOut(OUT);
            System.setErr(errBefore);
        }
        int status = statuses.isEmpty() ? 0 : statuses.get(0);
        return Map.of("status", status, "out", out.toString(StandardCharsets.UTF_8), "err", err.toString(StandardCharsets.UTF_8));
    }
}
