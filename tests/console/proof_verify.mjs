// Verifies evidence documents with the proof viewer's modules. Reads a line of JSON for each from standard input, with
// document and trust file in base64, and prints a line with the verdict, or with how the verifier failed.
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

const folder = pathToFileURL(`${process.argv[2]}/`)
const { verify } = await import(new URL('verify.js', folder))

const plain = (_, value) => (typeof value === 'bigint' ? Number(value) : value)

for await (const line of createInterface({ input: process.stdin })) {
  const { document, trust } = JSON.parse(line)
  try {
    const { verdict, steps } = await verify(Buffer.from(document, 'base64'), Buffer.from(trust, 'base64'))
    // What a page would show of it must not fail either, whatever it is.
    for (const step of steps) for (const item of step.items) item.about()
    console.log(JSON.stringify(verdict, plain))
  } catch (error) {
    console.log(JSON.stringify({ crashed: String(error.stack) }))
  }
}
