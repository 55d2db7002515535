// LangChain.js and the AI SDK. usage: node frameworks.mjs HOST; prints one JSON line a check.
import { ChatOllama, OllamaEmbeddings } from '@langchain/ollama'
import { HumanMessage, ToolMessage } from '@langchain/core/messages'
import { tool as langchainTool } from '@langchain/core/tools'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { createOllama } from 'ai-sdk-ollama'
import * as ai from 'ai'
import { z } from 'zod'

const [host] = process.argv.slice(2)
const model = 'demo-moe'
const report = (name, value) => console.log(JSON.stringify({ name, value }))
const story = 'Tell me a story about a boat.'
const weather = 'What is the weather in Paris?'
const trip = z.object({ to: z.enum(['Oslo', 'Rome']), days: z.number().int().min(1).max(9) })
const isTrip = (value) => trip.safeParse(value).success

const chain = new ChatOllama({ model, baseUrl: host, temperature: 0, numPredict: 200, think: false })
const whole = await chain.invoke(story)
report('langchain chat', whole.content.length > 0)
let text = ''
for await (const part of await chain.stream(story)) text += part.content
report('langchain stream', text === whole.content)
const getWeather = langchainTool(({ city }) => `sunny in ${city}`, { name: 'get_weather', description: 'Get the weather of a city', schema: z.object({ city: z.string() }) })
const bound = chain.bindTools([getWeather])
const answer = await bound.invoke([new HumanMessage(weather)])
report('langchain tools', answer.tool_calls.map((call) => [call.name, call.args]))
const result = new ToolMessage({ content: 'sunny', tool_call_id: answer.tool_calls[0].id })
report('langchain round trip', (await bound.invoke([new HumanMessage(weather), answer, result])).content.length > 0)
report('langchain structured', isTrip(await chain.withStructuredOutput(trip, { method: 'jsonSchema' }).invoke('Book a trip.')))
report('langchain embeddings', (await new OllamaEmbeddings({ model: 'encoder', baseUrl: host }).embedDocuments(['a', 'b'])).map((vector) => vector.length))

const providers = {
  compatible: createOpenAICompatible({ name: 'moellama', baseURL: `${host}/v1`, supportsStructuredOutputs: true }),
  ollama: createOllama({ baseURL: host }),
}
for (const [name, provider] of Object.entries(providers)) {
  const given = { model: provider(model), temperature: 0, maxOutputTokens: 300, maxRetries: 0 }
  const tools = { get_weather: ai.tool({ description: 'Get the weather of a city', inputSchema: z.object({ city: z.string() }), execute: async ({ city }) => `sunny in ${city}` }) }
  const said = await ai.generateText({ ...given, prompt: story })
  report(`${name} text`, said.text.length + (said.reasoningText ?? '').length > 0)
  let streamed = 0
  for await (const part of ai.streamText({ ...given, prompt: story }).fullStream) if (part.type === 'text-delta' || part.type === 'reasoning-delta') streamed += 1
  report(`${name} stream`, streamed > 1)
  const looped = await ai.generateText({ ...given, prompt: weather, tools, stopWhen: ai.stepCountIs(3) })
  report(`${name} tools`, looped.steps.flatMap((step) => step.toolResults.map((entry) => entry.output)).slice(0, 1))
  if (name === 'compatible') { // the other one keeps the choice of a tool to itself
    const forced = await ai.generateText({ ...given, prompt: 'Hello!', tools, toolChoice: 'required' })
    report(`${name} required`, forced.steps[0].toolCalls.length > 0)
  }
  const made = await ai.generateText({ ...given, prompt: 'Book a trip.', output: ai.Output.object({ schema: trip }) })
  report(`${name} structured`, isTrip(made.output))
  const embedder = provider.textEmbeddingModel('encoder')
  report(`${name} embeddings`, (await ai.embedMany({ model: embedder, values: ['a', 'b'] })).embeddings.map((vector) => vector.length))
}
