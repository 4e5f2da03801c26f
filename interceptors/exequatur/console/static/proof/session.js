// One verification after the other, and what a page asks of the last one: summaries of its steps, and items as needed.

import { verify } from './verify.js'

const PAGE = 50

/** The steps without their items, of which there may be very many. */
const summaries = (steps) => steps.map(({ items, ...step }) => ({ ...step, count: items.length, bad: items.findIndex((each) => each.state === 'bad') }))

export class Session {
  #steps = []

  /**
   * @param {ArrayBuffer} document
   * @param {ArrayBuffer} trust
   * @param {(steps) => void} report
   * @returns `{verdict, keys, steps}`, all of it plain data
   */
  async verify(document, trust, report) {
    const found = await verify(new Uint8Array(document), new Uint8Array(trust), ({ steps }) => report(summaries(steps)))
    this.#steps = found.steps
    return { verdict: found.verdict, keys: found.keys, steps: summaries(found.steps) }
  }

  /** A page of a step's items, each with its state. */
  items(id, from) {
    const { items } = this.#steps.find((step) => step.id === id)
    return items.slice(from, from + PAGE).map(({ state, about }) => ({ state, ...about() }))
  }
}
