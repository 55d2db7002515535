// The `openai` and `@anthropic-ai/sdk` packages. usage: node openai.mjs HOST; prints one JSON line a check.
import OpenAI from 'openai'
import Anthropic from '@anthropic-ai/sdk'

const [host] = process.argv.slice(2)
const model = 'demo-moe'
const report = (name, value) => console.log(JSON.stringify({ name, value }))
const schema = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'], additionalProperties: false }
const story = [{ role: 'user', content: 'Tell me a story about a boat.' }]
const weather = [{ role: 'user', content: 'What is the weather in Paris?' }]

const client = new OpenAI({ baseURL: `${host}/v1`, apiKey: 'x', maxRetries: 0 })
const given = { model, temperature: 0, max_tokens: 150, reasoning_effort: 'none' }
const whole = await client.chat.completions.create({ ...given, messages: story })
report('openai chat', whole.choices[0].message.content.length > 0)
let text = ''
for await (const part of await client.chat.completions.create({ ...given, messages: story, stream: true })) text += part.choices[0]?.delta?.content ?? ''
report('openai stream', text === whole.choices[0].message.content)

const tools = [{ type: 'function', function: { name: 'get_weather', description: 'Get the weather of a city', parameters: schema, strict: true } }]
const { message } = (await client.chat.completions.create({ ...given, messages: weather, tools })).choices[0]
report('openai tools', message.tool_calls.map((call) => [call.function.name, JSON.parse(call.function.arguments)]))
const result = { role: 'tool', tool_call_id: message.tool_calls[0].id, content: 'sunny, 21 degrees' }
report('openai round trip', (await client.chat.completions.create({ ...given, messages: [...weather, message, result], tools })).choices[0].message.content.length > 0)
const runner = client.chat.completions.runTools({
  ...given,
  messages: weather,
  tools: [{ type: 'function', function: { name: 'get_weather', description: 'Get the weather of a city', parameters: schema, parse: JSON.parse, function: () => 'sunny' } }],
})
report('openai runTools', (await runner.finalContent()).length > 0)

const format = { type: 'json_schema', json_schema: { name: 'place', strict: true, schema } }
report('openai structured', Object.keys(JSON.parse((await client.chat.completions.create({ ...given, messages: story, response_format: format })).choices[0].message.content)))
report('openai embeddings', (await client.embeddings.create({ model: 'encoder', input: ['a', 'b'] })).data.map((entry) => entry.embedding.length))
report('openai models', (await client.models.list()).data.map((entry) => entry.id).includes('demo-moe:latest'))
const kinds = []
const stream = client.responses.stream({ model, input: 'Hello!', temperature: 0, max_output_tokens: 200 })
for await (const event of stream) kinds.push(event.type)
report('openai responses', [kinds[0], kinds.at(-1), (await stream.finalResponse()).status])

const claude = new Anthropic({ baseURL: host, apiKey: 'x', maxRetries: 0 })
const asked = { model, max_tokens: 150, thinking: { type: 'disabled' } }
report('anthropic messages', (await claude.messages.create({ ...asked, messages: story })).content[0].text.length > 0)
report('anthropic stream', (await claude.messages.stream({ ...asked, messages: story }).finalText()).length > 0)
const used = await claude.messages.create({ ...asked, messages: weather, tools: [{ name: 'get_weather', description: 'Get the weather of a city', input_schema: schema }], tool_choice: { type: 'tool', name: 'get_weather' } })
const call = used.content.find((block) => block.type === 'tool_use')
report('anthropic tools', [used.stop_reason, Object.keys(call.input)])
const history = [...weather, { role: 'assistant', content: used.content }, { role: 'user', content: [{ type: 'tool_result', tool_use_id: call.id, content: 'sunny' }] }]
report('anthropic round trip', (await claude.messages.create({ ...asked, messages: history })).content.length > 0)
report('anthropic count', (await claude.messages.countTokens({ model, messages: story })).input_tokens > 0)
