// kafkajs 2.2.4 with codecs that come ready to run. (lz4js will not do: its frames have dependent blocks, which Kafka's
// own decoder refuses.)
//
// Consuming is missing: kafkajs reads only as a member of a consumer group, and groups are not part of these suites.

'use strict'

const fs = require('fs')
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = require('kafkajs')

const CODECS = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
}

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')

const lz4 = require('lz4-napi')
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async (encoder) => lz4.compressFrame(encoder.buffer),
  decompress: async (buffer) => lz4.decompressFrame(buffer),
})

const zstd = require('@bokuweb/zstd-wasm')
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => { await zstd.init(); return Buffer.from(zstd.compress(encoder.buffer, 3)) },
  decompress: async (buffer) => { await zstd.init(); return Buffer.from(zstd.decompress(buffer)) },
})

const unhex = (text) => (text === null ? null : Buffer.from(text, 'hex'))

function load (path) {
  return fs.readFileSync(path, 'utf8').trim().split('\n').map((line) => {
    const { k, v, t, h } = JSON.parse(line)
    const headers = {}
    for (const [name, value] of h) (headers[name] ||= []).push(unhex(value))
    return { key: unhex(k), value: unhex(v), timestamp: String(t), headers, partition: 0 }
  })
}

async function produce (kafka, path, ...targets) {
  const producer = kafka.producer()
  await producer.connect()
  for (const target of targets) {
    const [codec, topic] = target.split('=')
    const answers = await producer.send({ topic, acks: -1, compression: CODECS[codec], messages: load(path) })
    if (answers.length !== 1 || answers[0].errorCode !== 0) throw new Error(JSON.stringify(answers))
  }
  await producer.disconnect()
}

async function withAdmin (kafka, work) {
  const admin = kafka.admin()
  await admin.connect()
  try {
    return await work(admin)
  } finally {
    await admin.disconnect()
  }
}

const commands = {
  produce,

  times: (kafka, topic, ...timestamps) => withAdmin(kafka, async (admin) => {
    const [end] = await admin.fetchTopicOffsets(topic)
    const found = []
    for (const timestamp of timestamps) {
      const [{ offset }] = await admin.fetchTopicOffsetsByTimestamp(topic, Number(timestamp))
      // kafkajs puts the end of the partition where the broker says that there is none.
      found.push(offset === end.high ? -1 : Number(offset))
    }
    console.log(JSON.stringify(found))
  }),

  offsets: (kafka, topic) => withAdmin(kafka, async (admin) => {
    const offsets = await admin.fetchTopicOffsets(topic)
    console.log(JSON.stringify(offsets.map((o) => [o.partition, Number(o.low), Number(o.high)]).sort((a, b) => a[0] - b[0])))
  }),

  create: (kafka, topic, numPartitions, ...configs) => withAdmin(kafka, async (admin) => {
    const configEntries = configs.map((config) => {
      const [name, value] = config.split('=')
      return { name, value }
    })
    const created = await admin.createTopics({
      topics: [{ topic, numPartitions: Number(numPartitions), replicationFactor: 1, configEntries }],
    })
    if (!created) throw new Error(`${topic} existed already`)
  }),
}

const [command, bootstrap, ...rest] = process.argv.slice(2)
const kafka = new Kafka({ clientId: 'takhin-e2e', brokers: [bootstrap], logLevel: logLevel.ERROR })
commands[command](kafka, ...rest).catch((error) => {
  console.error(error)
  process.exit(1)
})
