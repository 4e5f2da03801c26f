// The proof viewer as a page of the console: the trust file and the documents of runs come from the console.

import { Engine } from './proof/engine.js'
import { start } from './proof/view.js'

const { trust, evidence, name } = document.getElementById('proof').dataset

async function fetched(url, called) {
  const response = await fetch(url, { headers: { Accept: 'application/json' } })
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}))
    throw new Error(problem.text ?? `the console answered ${response.status}`)
  }
  return { name: called, bytes: await response.arrayBuffer() }
}

const make = () => new Worker('/static/proof/worker.js', { type: 'module' })
const view = start(new Engine(make), () => fetched(trust, 'the console’s trust file'))
if (evidence !== undefined) view.open('evidence', () => fetched(evidence, name))
