// kafkajs as a session: see ../README.md. usage: kafkajs_session.js BOOTSTRAP
//
// kafkajs knows eager rebalancing only, and neither static members nor KIP-848.

'use strict'

const readline = require('readline')
const { Kafka, logLevel, ConfigResourceTypes, AssignerProtocol } = require('kafkajs')

const [bootstrap] = process.argv.slice(2)
const client = (clientId) => new Kafka({ clientId, brokers: bootstrap.split(','), logLevel: logLevel.NOTHING })
const admin = client('admin').admin()
const show = (event) => console.log(JSON.stringify(event))
const label = (topic, partition) => `${topic}-${partition}`

const members = {}

async function join (name, groupId, topic) {
  // It sends heartbeats between fetches only.
  const times = { sessionTimeout: 6000, heartbeatInterval: 500, maxWaitTimeInMs: 200 }
  const consumer = client(`client-${name}`).consumer({ groupId, ...times })
  const member = { consumer, owned: [], next: {} }
  members[name] = member
  const revoke = () => {
    if (member.owned.length) show({ name, event: 'revoked', partitions: member.owned })
    member.owned = []
    member.next = {}
  }
  consumer.on(consumer.events.REBALANCING, revoke)
  consumer.on(consumer.events.GROUP_JOIN, ({ payload: { memberAssignment } }) => {
    revoke()
    member.owned = Object.entries(memberAssignment).flatMap(([topic, all]) => all.map((p) => label(topic, p)))
    show({ name, event: 'assigned', partitions: member.owned })
  })
  consumer.on(consumer.events.CRASH, ({ payload: { error, restart } }) => {
    console.error(error)
    if (!restart) process.exit(1)
  })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ topic, partition, message }) => {
      const offset = Number(message.offset)
      member.next[label(topic, partition)] = { topic, partition, offset: String(offset + 1) }
      show({ name, event: 'read', record: [label(topic, partition), offset] })
    },
  })
}

async function commit (name) {
  const { consumer, next } = members[name]
  const offsets = { ...next }
  await consumer.commitOffsets(Object.values(offsets))
  const numbers = Object.entries(offsets).map(([partition, { offset }]) => [partition, Number(offset)])
  show({ name, event: 'committed', offsets: Object.fromEntries(numbers) })
}

const writers = {}

// kafkajs calls its idempotent producer an experiment: this one may write a record twice.
async function write (name, topic) {
  const producer = client(`writer-${name}`).producer({ retry: { retries: 30, maxRetryTime: 1000 } })
  await producer.connect()
  const writer = { leaving: false }
  const run = async () => {
    for (let number = 0; !writer.leaving; number++) {
      const messages = [{ value: `${name} ${number}` }]
      const [{ topicName, partition, baseOffset }] = await producer.send({ topic, acks: -1, messages })
      show({ name, event: 'wrote', number, record: [label(topicName, partition), Number(baseOffset)] })
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    await producer.disconnect()
    show({ name, event: 'left' })
  }
  writers[name] = writer
  run().catch((error) => {
    console.error(error)
    process.exit(1)
  })
}

async function leave (name) {
  if (writers[name]) {
    writers[name].leaving = true
    return
  }
  await members[name].consumer.disconnect()
  show({ name, event: 'left' })
}

const places = (words) => words.map((word) => {
  const [topic, partition, offset] = word.split(':')
  return { topic, partition: Number(partition), offset }
})

const committed = async (groupId) => {
  const topics = await admin.fetchOffsets({ groupId })
  return Object.fromEntries(topics.flatMap(({ topic, partitions }) =>
    partitions.map(({ partition, offset }) => [label(topic, partition), Number(offset)])))
}

// AlterConfigs replaces everything, and kafkajs has no other way: what is set already is read first.
async function alter (topic, operation, entry) {
  const [name, value] = entry.split('=')
  const all = (await describeConfigs(topic)).filter((c) => c.configSource === 1 && c.configName !== name)
  const configEntries = all.map((c) => ({ name: c.configName, value: c.configValue }))
  if (operation === 'set') configEntries.push({ name, value })
  await admin.alterConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries }] })
}

async function describeConfigs (topic) {
  const { resources } = await admin.describeConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }] })
  return resources[0].configEntries
}

const commands = {
  // kafkajs asks for a version that has no states.
  groups: async () => {
    const { groups } = await admin.listGroups()
    return Object.fromEntries(groups.map(({ groupId }) => [groupId, null]))
  },

  describe: async (group) => {
    const { groups: [found] } = await admin.describeGroups([group])
    return {
      state: found.state,
      protocol: found.protocol,
      members: found.members.map((member) => {
        const decoded = AssignerProtocol.MemberAssignment.decode(member.memberAssignment)
        return {
          id: member.memberId,
          client: member.clientId,
          host: member.clientHost,
          instance: null,
          partitions: Object.entries(decoded.assignment).flatMap(([topic, all]) => all.map((p) => label(topic, p))),
        }
      }),
    }
  },

  committed,

  reset: async (groupId, ...words) => {
    const wanted = places(words)
    await admin.setOffsets({ groupId, topic: wanted[0].topic, partitions: wanted.map(({ partition, offset }) => ({ partition, offset })) })
  },

  drop: (group) => admin.deleteGroups([group]),
  grow: (topic, count) => admin.createPartitions({ topicPartitions: [{ topic, count: Number(count) }] }),
  configs: async (topic) => Object.fromEntries((await describeConfigs(topic)).map((c) => [c.configName, c.configValue])),
  alter,

  trim: async (...words) => {
    const wanted = places(words)
    const [{ topic }] = wanted
    // Without it kafkajs knows no leader of the topic.
    await admin.fetchTopicOffsets(topic)
    await admin.deleteTopicRecords({ topic, partitions: wanted.map(({ partition, offset }) => ({ partition, offset })) })
    const offsets = await admin.fetchTopicOffsets(topic)
    const trimmed = offsets.filter((o) => wanted.some((w) => w.partition === o.partition))
    return Object.fromEntries(trimmed.map((o) => [label(topic, o.partition), Number(o.low)]))
  },

  remove: (topic) => admin.deleteTopics({ topics: [topic] }),
}

// The broker's error code, however deep kafkajs has wrapped it.
function codeOf (error) {
  if (!error) return undefined
  if (typeof error.code === 'number') return error.code
  if (typeof error.errorCode === 'number') return error.errorCode
  const inner = [error.originalError, error.cause, error.error, ...(error.groups || []), ...(error.errors || []), ...(error.partitions || [])]
  return inner.map(codeOf).find((code) => code !== undefined)
}

async function obey (line) {
  const [command, ...words] = line.split(' ')
  if (command === 'join') return join(...words)
  if (command === 'write') return write(...words)
  const member = { commit, leave }[command]
  try {
    if (member) return await member(...words)
    const answer = await commands[command](...words)
    show({ event: 'answer', answer: answer === undefined || answer === true ? null : answer })
  } catch (error) {
    // What kafkajs refuses by itself has no code.
    const code = codeOf(error) ?? null
    if (code === null && error.name !== 'KafkaJSNonRetriableError') throw error
    show({ ...(member && { name: words[0] }), event: 'refused', code })
  }
}

async function main () {
  await admin.connect()
  for await (const line of readline.createInterface({ input: process.stdin })) await obey(line)
  process.exit(0)
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
