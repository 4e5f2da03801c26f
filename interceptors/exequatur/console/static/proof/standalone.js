// The proof viewer as one file: it asks nobody, and what it verifies is in it or is chosen by the reader.

import { Engine } from './engine.js'
import { start } from './view.js'

const text = (id) => document.getElementById(id).textContent

const make = () => {
  const url = URL.createObjectURL(new Blob([text('verifier')], { type: 'text/javascript' }))
  return new Worker(url)
}
const view = start(new Engine(make))
const { name, document: held } = JSON.parse(text('evidence'))
if (held !== null) view.open('evidence', async () => ({ name, bytes: new TextEncoder().encode(held).buffer }))
