// The Java client (kafka-clients), run as a single source file. Commands: see ../README.md.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class Clients {
    private static final long LIMIT_SECONDS = 60;
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] args) throws Exception {
        String bootstrap = args[1];
        List<String> rest = Arrays.asList(args).subList(2, args.length);
        switch (args[0]) {
            case "produce" -> produce(bootstrap, Path.of(rest.get(0)), rest.subList(1, rest.size()));
            case "consume" -> consume(bootstrap, rest);
            case "times" -> times(bootstrap, rest.get(0), rest.subList(1, rest.size()));
            case "create" -> create(bootstrap, rest.get(0), Integer.parseInt(rest.get(1)), rest.subList(2, rest.size()));
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    private static void produce(String bootstrap, Path cases, List<String> targets) throws Exception {
        for (String target : targets) {
            String[] codecAndTopic = target.split("=", 2);
            Map<String, Object> config = Map.of(
                "bootstrap.servers", bootstrap, "acks", "all", "enable.idempotence", true, "linger.ms", 20,
                "compression.type", codecAndTopic[0]);
            try (var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
                List<Future<RecordMetadata>> answers = new ArrayList<>();
                for (String line : Files.readAllLines(cases)) {
                    answers.add(producer.send(record(codecAndTopic[1], JSON.readTree(line))));
                }
                producer.flush();
                for (var answer : answers) {
                    answer.get(LIMIT_SECONDS, TimeUnit.SECONDS);
                }
            }
        }
    }

    private static ProducerRecord<byte[], byte[]> record(String topic, JsonNode c) {
        var record = new ProducerRecord<>(topic, 0, c.get("t").asLong(), unhex(c.get("k")), unhex(c.get("v")));
        for (JsonNode header : c.get("h")) {
            record.headers().add(header.get(0).asText(), unhex(header.get(1)));
        }
        return record;
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String bootstrap) {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "enable.auto.commit", false);
        return new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static void consume(String bootstrap, List<String> wanted) throws Exception {
        var out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        try (var consumer = consumer(bootstrap)) {
            for (String word : wanted) {
                String[] parts = word.split(":");
                var partition = new TopicPartition(parts[0], 0);
                long position = Long.parseLong(parts[1]);
                long end = Long.parseLong(parts[2]);
                consumer.assign(List.of(partition));
                consumer.seek(partition, position);
                long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(LIMIT_SECONDS);
                while (position < end) {
                    if (System.nanoTime() > deadline) {
                        throw new IllegalStateException("stuck at " + partition + " " + position);
                    }
                    for (var record : consumer.poll(Duration.ofSeconds(1))) {
                        if (position < end) {
                            out.println(JSON.writeValueAsString(line(record)));
                            position = record.offset() + 1;
                        }
                    }
                }
            }
        }
        out.flush();
    }

    private static ObjectNode line(ConsumerRecord<byte[], byte[]> record) {
        ObjectNode line = JSON.createObjectNode();
        line.put("topic", record.topic()).put("offset", record.offset()).put("t", record.timestamp());
        line.put("k", hex(record.key())).put("v", hex(record.value()));
        ArrayNode headers = line.putArray("h");
        for (Header header : record.headers()) {
            headers.addArray().add(header.key()).add(hex(header.value()));
        }
        return line;
    }

    private static void times(String bootstrap, String topic, List<String> timestamps) throws Exception {
        var partition = new TopicPartition(topic, 0);
        List<Long> found = new ArrayList<>();
        try (var consumer = consumer(bootstrap)) {
            for (String timestamp : timestamps) {
                OffsetAndTimestamp answer =
                    consumer.offsetsForTimes(Map.of(partition, Long.parseLong(timestamp))).get(partition);
                found.add(answer == null ? -1 : answer.offset());
            }
        }
        System.out.println(JSON.writeValueAsString(found));
    }

    private static void create(String bootstrap, String topic, int partitions, List<String> configs) throws Exception {
        Map<String, String> settings = new HashMap<>();
        for (String config : configs) {
            String[] parts = config.split("=", 2);
            settings.put(parts[0], parts[1]);
        }
        try (var admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            var created = admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1).configs(settings)));
            created.all().get(LIMIT_SECONDS, TimeUnit.SECONDS);
        }
    }

    private static byte[] unhex(JsonNode text) {
        return text.isNull() ? null : HexFormat.of().parseHex(text.asText());
    }

    private static String hex(byte[] bytes) {
        return bytes == null ? null : HexFormat.of().formatHex(bytes);
    }
}
