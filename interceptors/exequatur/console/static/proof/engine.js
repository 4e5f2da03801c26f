// Where the verification runs: in a worker, or, where the browser starts none, in pieces in the page.

import { Session } from './session.js'

const STOPPED = new Error('it was stopped')
const STUCK = 'the browser ended the verification, as it does when memory runs out'

/** A verifier in a worker that is made anew for each document, so that a stuck one can be let go. */
export class Engine {
  #make
  #worker = null
  #session = null
  #waiting = []
  #report = () => {}
  #heard = false

  /** @param {() => Worker} make throws, or gives a worker that fails to load, where there are none */
  constructor(make) {
    this.#make = make
  }

  /** See Session.verify. Rejects where nothing could be found out. */
  async verify(document, trust, report) {
    this.stop()
    this.#report = report
    try {
      this.#start()
      return await this.#call('verify', { document, trust })
    } catch (error) {
      // A worker that never said anything was not allowed to begin.
      if (this.#heard || error === STOPPED) throw error
      const session = new Session()
      this.#session = session
      return session.verify(document, trust, (steps) => {
        if (this.#session !== session) throw STOPPED
        report(steps)
      })
    }
  }

  /** See Session.items. */
  async items(id, from) {
    return this.#session === null ? this.#call('items', { id, from }) : this.#session.items(id, from)
  }

  /** End what runs. */
  stop() {
    this.#worker?.terminate()
    this.#worker = null
    this.#session = null
    for (const { reject } of this.#waiting.splice(0)) reject(STOPPED)
  }

  #start() {
    const worker = this.#make()
    this.#heard = false
    worker.onmessage = ({ data }) => {
      this.#heard = true
      if (data.steps !== undefined) return this.#report(data.steps)
      const { resolve, reject } = this.#waiting.shift()
      return data.failed === undefined ? resolve(data.found) : reject(new Error(data.failed))
    }
    worker.onerror = (event) => {
      event.preventDefault()
      for (const { reject } of this.#waiting.splice(0)) reject(new Error(event.message || STUCK))
    }
    this.#worker = worker
  }

  #call(call, given) {
    if (this.#worker === null) return Promise.reject(STOPPED)
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject })
      this.#worker.postMessage({ call, given })
    })
  }
}
