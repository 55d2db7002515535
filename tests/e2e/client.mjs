// The real `ollama` JavaScript client drives every route; prints one JSON line a check. usage: node client.mjs HOST GGUF
import fs from 'node:fs'
import crypto from 'node:crypto'
import { Ollama } from 'ollama'

const [host, gguf] = process.argv.slice(2)
const client = new Ollama({ host })
const model = 'demo-moe'
const options = { temperature: 0, num_predict: 40 }
const messages = [{ role: 'user', content: 'Tell me a story about a boat.' }]
const report = (name, value) => console.log(JSON.stringify({ name, value }))

const whole = await client.chat({ model, messages, think: false, options })
report('chat', whole.message.content.length > 0 && whole.done)

let text = ''
for await (const part of await client.chat({ model, messages, think: false, options, stream: true })) text += part.message.content
report('stream', text === whole.message.content)

const thought = await client.chat({ model, messages: [{ role: 'user', content: 'What is 12 plus 30?' }], think: true, options: { ...options, num_predict: 300 } })
report('think', thought.message.thinking.length > 0)

const tools = [{ type: 'function', function: { name: 'get_weather', description: 'Get the weather of a city', parameters: { type: 'object', properties: { city: { type: 'string', description: 'The city' } }, required: ['city'] } } }]
const history = [{ role: 'user', content: 'What is the weather in Paris?' }]
const asked = await client.chat({ model, messages: history, tools, think: false, options: { ...options, num_predict: 200 } })
report('tools', asked.message.tool_calls?.[0]?.function)
const answered = await client.chat({ model, messages: [...history, asked.message, { role: 'tool', tool_name: 'get_weather', content: 'sunny, 21 degrees' }], tools, think: false, options })
report('tool result', answered.message.content.length > 0)

const generated = await client.generate({ model, prompt: 'Say hello.', think: false, options })
report('generate', generated.response.length > 0 && generated.context.length > 0)

const stream = await client.generate({ model, prompt: 'Once upon a time', raw: true, stream: true, options: { ...options, num_predict: 2000 } })
let error = ''
try {
  for await (const part of stream) stream.abort()
} catch (reason) {
  error = reason.name
}
report('abort', error)

const digest = 'sha256:' + crypto.createHash('sha256').update(fs.readFileSync(gguf)).digest('hex')
const blob = await fetch(`${host}/api/blobs/${digest}`, { method: 'POST', body: fs.readFileSync(gguf) })
report('blob', blob.status === 201 || blob.status === 200)
report('create', (await client.create({ model: 'js-made', files: { 'demo.gguf': digest }, stream: false })).status)
report('create from', (await client.create({ model: 'js-pirate', from: model, system: 'You are a pirate.' })).status)
report('copy', (await client.copy({ source: 'js-made', destination: 'js-copy' })).status)
report('list', (await client.list()).models.map((entry) => entry.name).filter((name) => name.startsWith('js-')).sort())
report('show', (await client.show({ model: 'js-pirate' })).system)
report('ps', (await client.ps()).models.map((entry) => entry.name).includes('demo-moe:latest'))
for (const name of ['js-made', 'js-pirate', 'js-copy']) await client.delete({ model: name })
try {
  await client.show({ model: 'js-made' })
} catch (reason) {
  report('missing', [reason.status_code, reason.error])
}
report('version', (await client.version()).version)
