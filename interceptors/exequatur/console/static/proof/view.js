// The page: choose evidence and a trust file, read the verdict, and look into every step.

import { MAX_BYTES } from './document.js'
import { make, copier, shown, shownBlock, time } from './text.js'

const STATES = {
  good: ['✓', 'good', 'holds'],
  bad: ['✕', 'violation', 'does not hold'],
  empty: ['–', 'notice', 'nothing to check'],
  unreached: ['○', 'notice', 'not reached'],
  running: ['…', 'unproven', 'checking'],
}
const PARTIES = [
  ['Authority', null],
  ['Notary', 'notary'],
  ['Witness', 'witness'],
]
const MEBIBYTE = 1024 * 1024
const MOST_TRUST = 4 * MEBIBYTE
const SHORT = 12

const counted = (number, noun) => `${Number(number).toLocaleString('en')} ${noun}${Number(number) === 1 ? '' : 's'}`
const size = (bytes) => (bytes < MEBIBYTE ? `${Math.ceil(bytes / 1024)} KiB` : `${(bytes / MEBIBYTE).toFixed(1)} MiB`)

/**
 * Bring the page to life.
 *
 * @param engine of engine.js
 * @param {() => Promise<{name, bytes}>} offered the trust file that the page offers, if it offers one
 */
export function start(engine, offered = null) {
  return new View(engine, offered)
}

class View {
  #engine
  #given = { evidence: null, trust: null }
  #turns = { evidence: 0, trust: 0 }
  #run = 0

  constructor(engine, offered) {
    this.#engine = engine
    for (const kind of ['evidence', 'trust']) this.#listen(kind)
    for (const type of ['dragover', 'drop']) document.addEventListener(type, (event) => event.preventDefault())
    at('offer')?.addEventListener('click', () => this.open('trust', offered))
    at('stop').addEventListener('click', () => this.#engine.stop())
    at('again').addEventListener('click', () => this.#verify())
  }

  /**
   * Take a file that comes from elsewhere than the reader's disk.
   *
   * @param {'evidence'|'trust'} kind
   * @param {() => Promise<{name, bytes}>} fetched
   */
  async open(kind, fetched) {
    await this.#choose(kind, 'Opening…', fetched, (error) => `It cannot be opened: ${shown(error.message)}`)
  }

  #listen(kind) {
    const zone = at(`${kind}-zone`)
    const input = at(`${kind}-file`)
    input.addEventListener('change', () => this.#read(kind, input.files[0]))
    zone.addEventListener('dragover', () => zone.classList.add('over'))
    zone.addEventListener('dragleave', () => zone.classList.remove('over'))
    zone.addEventListener('drop', (event) => {
      zone.classList.remove('over')
      const { files } = event.dataTransfer
      if (files.length === 1) this.#read(kind, files[0])
      else this.#refuse(kind, files.length === 0 ? 'What was dropped is no file.' : 'Several files were dropped. Drop one.')
    })
  }

  async #read(kind, file) {
    if (file === undefined) return
    const most = kind === 'evidence' ? MAX_BYTES : MOST_TRUST
    if (file.size > most) {
      this.#refuse(kind, `${shown(file.name)} has ${size(file.size)}. More than ${size(most)} are not read.`)
      return
    }
    await this.#choose(
      kind,
      'Reading…',
      async () => ({ name: file.name, bytes: await file.arrayBuffer() }),
      (error) => `${shown(file.name)} cannot be read: ${shown(error.message)}`,
    )
  }

  /** Take what comes, unless something else was chosen in the meantime. */
  async #choose(kind, doing, coming, failed) {
    this.#turns[kind] += 1
    const turn = this.#turns[kind]
    this.#given[kind] = null
    this.#clear()
    say(kind, doing)
    try {
      const { name, bytes } = await coming()
      const hash = kind === 'trust' && crypto.subtle ? await sha256(bytes) : null
      if (turn === this.#turns[kind]) await this.#take(kind, { name, bytes, hash })
    } catch (error) {
      if (turn === this.#turns[kind]) this.#refuse(kind, failed(error))
    }
  }

  #refuse(kind, why) {
    this.#turns[kind] += 1
    this.#given[kind] = null
    at(`${kind}-zone`).classList.remove('chosen')
    say(kind, why)
    announce(why)
    this.#clear()
  }

  async #take(kind, given) {
    const { name, bytes, hash } = given
    this.#given[kind] = given
    at(`${kind}-zone`).classList.add('chosen')
    const line = `${shown(name)}, ${size(bytes.byteLength)}`
    say(kind, hash === null ? line : `${line}, SHA-256 ${hash.slice(0, 16)}…`)
    const missing = ['evidence', 'trust'].find((each) => this.#given[each] === null)
    if (missing === undefined) await this.#verify()
    else {
      this.#clear()
      announce(`${line}. Choose the ${missing === 'trust' ? 'trust file' : 'evidence'} now.`)
    }
  }

  #clear() {
    this.#run += 1
    this.#engine.stop()
    for (const id of ['verdict', 'details', 'working']) at(id).hidden = true
  }

  async #verify() {
    this.#clear()
    const run = this.#run
    if (!globalThis.crypto?.subtle) {
      this.#conclude('unchecked', 'This browser cannot verify here', [
        'Signatures can be verified only on a page that was opened over https, from localhost, or from a file.',
        'Save the stand-alone viewer and open it from your disk.',
      ])
      return
    }
    at('working').hidden = false
    const { evidence, trust } = this.#given
    try {
      const found = await this.#engine.verify(evidence.bytes, trust.bytes, (steps) => {
        if (run === this.#run) this.#progress(steps)
      })
      if (run === this.#run) this.#show(found)
    } catch (error) {
      if (run !== this.#run) return
      const unsupported = /Ed25519|[Uu]nrecognized|NotSupported|algorithm/.test(error.message)
      this.#conclude('unchecked', 'Nothing could be verified', [
        `The verification did not end: ${shown(error.message)}. This says nothing about the evidence.`,
        unsupported
          ? 'This browser may not know Ed25519 signatures. Use a current one.'
          : 'Try it again, or verify the file with `exequatur evidence verify`.',
      ])
    }
    if (run === this.#run) at('working').hidden = true
  }

  #progress(steps) {
    const running = steps.find((step) => step.state === 'running')
    if (running === undefined) return
    const count = running.count > 0 ? ` (${running.count.toLocaleString('en')})` : ''
    at('progress').textContent = `${running.title}${count}…`
  }

  #conclude(tone, title, sentences, extra = []) {
    const banner = at('verdict')
    banner.className = `verdict ${tone}`
    banner.replaceChildren(make('h2', title), ...sentences.map((each) => make('p', each)), ...extra)
    banner.hidden = false
    announce(`${title}. ${sentences[0]}`)
  }

  #show({ verdict, keys, steps }) {
    const standing = this.#standing(keys, verdict.verified)
    if (verdict.verified) this.#conclude('good', 'Verified', said(verdict), [standing, ...caveats(verdict, keys)])
    else {
      const step = steps.find((each) => each.id === verdict.step)
      const link = make('a', `Step ${steps.indexOf(step) + 1}: ${step.title}`)
      link.href = `#step-${step.id}`
      const reason = shown(begun(verdict.reason), 1000)
      const rule = verdict.rule === 'trust' ? '' : ` (rule ${verdict.rule})`
      const whose = verdict.step === 'trust' ? 'The trust file cannot be used' : 'Not verified'
      this.#conclude('violation', whose, [`${reason}${rule}.`], [make('p', link, ' does not hold. What comes after it was not reached.'), standing])
    }
    at('steps').replaceChildren(...steps.map((step, index) => this.#step(step, index + 1)))
    at('details').hidden = false
  }

  /** Whose keys it stands on: those of the reader's trust file that something was verified with. */
  #standing(keys, verified) {
    const { name, hash } = this.#given.trust
    const rows = [['Trust file', make('span', shown(name), ', which you chose')]]
    if (hash !== null) rows.push(['Its SHA-256', make('span.mono', hash)])
    for (const [label, roles] of PARTIES) {
      const parties = new Map()
      for (const { role, name: who } of keys) {
        if (roles === null ? role.startsWith('exequatur-') : role === roles) {
          parties.set(who, [...(parties.get(who) ?? []), role.replace(/^exequatur-(.*)\+jwt$/, '$1')])
        }
      }
      for (const [who, used] of parties) {
        rows.push([label, make('span', shown(who), roles === null ? `: keys for ${used.join(', ')}` : '')])
      }
    }
    const facts = make('dl.facts', ...rows.flatMap(([label, value]) => [make('dt', label), make('dd.hostile', value)]))
    return make('div.stands', make('h3', verified ? 'Whose keys this stands on' : 'Whose keys were used so far'), facts)
  }

  #step(step, number) {
    const [mark, tone, word] = STATES[step.state]
    const markElement = make(`span.mark.${tone}`, mark)
    markElement.setAttribute('aria-hidden', 'true')
    const summary = make(
      'summary',
      markElement,
      make('span.what', make('span.title', `${number}. ${step.title}`), make('span.said.soft.small.hostile', shown(begun(step.sentence), 1000))),
      make(`span.tag.${tone}`, word),
    )
    const details = make('details', summary)
    details.id = `step-${step.id}`
    details.addEventListener('toggle', () => details.open && this.#fill(details, step), { once: true })
    // A link to a step that is closed opens it.
    if (step.state === 'bad') details.open = true
    return make(`li.step.edge-${tone}`, details)
  }

  async #fill(details, step) {
    const list = make('div.items')
    details.append(make('p.about', step.about), make('p.soft.small', `Rules: ${step.rules}`), list)
    // What is wrong stands first, however much stands before it.
    if (step.bad >= 0) await this.#more(list, step, step.bad, step.bad + 1)
    if (step.count > 0) await this.#more(list, step, 0, step.count, step.bad)
  }

  async #more(list, step, from, until, stands = -1) {
    let items
    try {
      items = (await this.#engine.items(step.id, from)).slice(0, until - from)
    } catch {
      list.append(make('p.soft', 'The verification was stopped, so there is nothing more to show.'))
      return
    }
    list.append(...items.filter((_, index) => from + index !== stands).map((each) => this.#item(each)))
    const next = from + items.length
    if (next < until && items.length > 0) {
      const button = make('button.plain', `Show more: ${(until - next).toLocaleString('en')} are left`)
      button.type = 'button'
      button.addEventListener('click', async () => {
        button.remove()
        await this.#more(list, step, next, until, stands)
      })
      list.append(button)
    }
  }

  #item({ state, title, facts, blocks, way }) {
    const [mark, tone, word] = STATES[state]
    const sign = make(`span.mark.${tone}`, mark)
    sign.setAttribute('aria-hidden', 'true')
    const name = make('span.hostile', shown(title))
    const unseen = make('span.unseen', state === 'empty' ? '' : `: ${word}`)
    const details = make('details.item', make('summary', sign, make('span', name, unseen)))
    // What is inside is made when it is looked at.
    details.addEventListener('toggle', () => {
      details.append(factsOf(facts), ...(way === undefined ? [] : [wayOf(way, state === 'good')]), ...blocks.map(blockOf))
    }, { once: true })
    if (state === 'bad') details.open = true
    return details
  }
}

/** A sentence that begins with a capital. */
const begun = (text) => text.slice(0, 1).toUpperCase() + text.slice(1)

const at = (id) => document.getElementById(id)

const say = (kind, text) => {
  at(`${kind}-said`).textContent = text
}

const announce = (text) => {
  at('said').textContent = text
}

async function sha256(bytes) {
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))
  return Array.from(hash, (each) => each.toString(16).padStart(2, '0')).join('')
}

function said({ principal, statements, records, sizes, events }) {
  const history = sizes.length === 0 ? '' : `, ${counted(events.length, 'event')} of a history that a notary signed`
  return [
    `The run acted on behalf of ${shown(principal)}. Every rule holds: ${counted(statements, 'statement')}, ${counted(records, 'record')}${history}.`,
  ]
}

function caveats({ sizes }, keys) {
  const notes = []
  if (sizes.length === 0) {
    notes.push('No notary has signed this history: that nothing was left out, and all times, are what the workers say.')
  }
  if (keys.some(({ name }) => name.startsWith('dev:'))) {
    notes.push('The authority is a development one (“dev:”): who can read its state folder could have made all of this.')
  }
  notes.push('What the evidence itself says of trust was not looked at.')
  const audit = make('li', 'This proves who signed what. Whether the policies decide the same again, ', make('code', 'exequatur audit'), ' finds out.')
  return [make('ul.caveats', ...notes.map((each) => make('li', each)), audit)]
}

function factsOf(facts) {
  const rows = facts.flatMap(([label, value, kind]) => [make('dt', shown(label)), make('dd.hostile', ...factOf(label, value, kind))])
  return make('dl.facts', ...rows)
}

function factOf(label, value, kind) {
  if (kind === 'time') return [time(value)]
  const text = String(value)
  if (kind !== 'bytes') return [shown(text, 1000)]
  return [make('span.mono', shown(text, 200)), copier(text, label)]
}

function blockOf({ label, text, length }) {
  const cut = length > text.length ? ` (the first ${text.length.toLocaleString('en')} of ${length.toLocaleString('en')} characters)` : ''
  const pre = make('pre', shownBlock(text))
  pre.tabIndex = 0
  pre.setAttribute('aria-label', label)
  return make('div.block', make('div.row.spread', make('span.label', label + cut), copier(text, label)), pre)
}

/** The path from a leaf to the root: on each level the two halves of a node, and which one was computed here. */
function wayOf(way, leads) {
  const levels = way.map(({ hash }, level) => {
    const next = way[level + 1]
    const mine = nodeOf(hash, 'computed', level === 0 ? 'leaf' : 'node')
    if (next === undefined) {
      const top = leads ? ['root', 'the root that the notary signed'] : ['wrong', 'comes to this, and not to the root']
      return make('li.level', make('div.pair.root', nodeOf(hash, ...top)))
    }
    const other = nodeOf(next.sibling, 'given', 'from the proof')
    return make('li.level', make('div.pair', ...(next.side === 'left' ? [other, mine] : [mine, other])))
  })
  const list = make('ol.way', ...levels)
  list.reversed = true
  return make('div.block', make('span.label', 'The way up the Merkle tree: each pair is hashed to what stands above it'), list, keyOf())
}

function nodeOf(hash, kind, what) {
  const node = make(`span.node.${kind}`, make('span.mono', `${hash.slice(0, SHORT)}…`), make('span.small', what))
  node.title = hash
  return node
}

const keyOf = () => make('p.small.soft', 'Computed here: filled. Given by the proof: outlined.')
