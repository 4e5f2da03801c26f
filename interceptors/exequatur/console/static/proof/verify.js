// One evidence document against one trust file: what exequatur/audit/bundle.py verifies, in its order.
//
// W0 to W8 are numbered there. The first rule that does not hold ends the verification, as it does there; what comes
// after it was not reached. Nothing that the document says of trust is looked at.

import { aboutAnchor, aboutCheckpoint, aboutConsistency, aboutLeaf, aboutOther } from './about.js'
import { aboutParty, aboutRecord, aboutToken } from './about.js'
import { Refused, equal, fromBase64url } from './bytes.js'
import { Credentials, checkDepth, readApproval, verifyApproval, verifyChallenge } from './chain.js'
import { verifyDelegation, verifyGrant, verifyRenewal } from './chain.js'
import { checkLink, genesisOf, readDocument, sealTokens } from './document.js'
import { coreHash, parse, typeOf } from './jws.js'
import { leafHash, verifyConsistency, verifyInclusion } from './merkle.js'
import { readCheckpoint, verifyCheckpoint } from './note.js'
import { ShapeError, take } from './shapes.js'
import { Approval, Challenge, Delegation, Grant, HeartbeatMark, Message, NexusCall } from './statements.js'
import { Permit, Proofs, Receipt, Request, Seal, WorkloadCredential } from './statements.js'
import { Trace } from './steps.js'
import { readTrust, verifyAnchored } from './trust.js'

const ROLES = new Map([
  [Request.typ, [Request, 'request']],
  [Receipt.typ, [Receipt, 'receipt']],
  [Seal.typ, [Seal, 'seal']],
  [Delegation.typ, [Delegation, 'delegate']],
  [HeartbeatMark.typ, [HeartbeatMark, 'receipt']],
  [Message.typ, [Message, 'request']],
  [NexusCall.typ, [NexusCall, 'request']],
])

const NOUNS = new Map([
  [Request.typ, 'request'],
  [Receipt.typ, 'receipt'],
  [Seal.typ, 'seal'],
  [Delegation.typ, 'delegation'],
  [HeartbeatMark.typ, 'heartbeat mark'],
  [Message.typ, 'message'],
  [NexusCall.typ, 'Nexus call'],
])

const counted = (number, noun) => `${number.toLocaleString('en')} ${noun}${number === 1 ? '' : 's'}`

/**
 * Verify a document.
 *
 * @param {Uint8Array} documentBytes
 * @param {Uint8Array} trustBytes what the reader believes
 * @param report told of the steps while they are made
 * @returns `{verdict, steps, keys}`. The verdict is `{verified: true, principal, statements, records, sizes, events}` or
 *     `{verified: false, step, rule, reason}`; keys are those of the trust file that something was verified with.
 */
export async function verify(documentBytes, trustBytes, report = () => {}) {
  const trace = new Trace(report)
  const verification = new Verification(trace)
  try {
    const verdict = await verification.all(documentBytes, trustBytes)
    return { verdict, steps: trace.steps, keys: [...verification.keys.values()] }
  } catch (error) {
    if (!(error instanceof Refused)) throw error
    const { id } = trace.current
    trace.fail(error)
    const verdict = { verified: false, step: id, rule: error.rule, reason: error.message }
    return { verdict, steps: trace.steps, keys: [...verification.keys.values()] }
  }
}

class Verification {
  constructor(trace) {
    this.trace = trace
    this.keys = new Map()
    this.credentials = new Credentials()
  }

  async all(documentBytes, trustBytes) {
    const { trace } = this
    await this.trust(trustBytes)
    await this.document(documentBytes)
    await this.records()
    const byType = this.proofs()
    await this.workers(taken(byType, WorkloadCredential))
    const grants = taken(byType, Grant)
    await this.grant(grants[0])
    await this.delegations(byType.get(Delegation.typ) ?? [])
    await this.renewals(grants.slice(1))
    const agreements = await this.agreements(taken(byType, Challenge), taken(byType, Approval))
    const permits = await this.permits(taken(byType, Permit))
    const said = await this.statements(byType)
    await this.belonging(said)
    const heads = await this.checkpoints()
    await this.inclusion(heads)
    await this.consistency(heads)
    const signed = [...said.values()].reduce((sum, tokens) => sum + tokens.length, 0)
    trace.report(trace)
    return {
      verified: true,
      principal: this.chain.grant.claims.sub,
      statements: grants.length + agreements + permits + signed,
      records: this.links.length,
      sizes: heads.map((head) => head.size),
      events: this.content.inclusion.map((each) => BigInt(each.index) + 1n),
    }
  }

  async trust(bytes) {
    this.trace.begin('trust')
    const trust = await readTrust(bytes)
    for (const anchor of trust.anchors.values()) this.trace.note(() => aboutAnchor(anchor))
    for (const key of trust.notaries) this.trace.note(() => aboutParty(key, 'Notary'))
    for (const key of trust.witnesses) this.trace.note(() => aboutParty(key, 'Witness'))
    this.believed = trust
    const parties = `${counted(trust.notaries.length, 'notary key')}, ${counted(trust.witnesses.length, 'witness key')}`
    this.trace.end(`It holds ${counted(trust.anchors.size, 'authority key')}, ${parties}.`)
  }

  async document(bytes) {
    this.trace.begin('document')
    const document = readDocument(bytes)
    this.links = document.links
    this.notes = document.checkpoints
    this.told = document.proofs
    const notes = counted(this.notes.length, 'checkpoint')
    this.trace.end(`${counted(bytes.length, 'byte')}, ${counted(this.links.length, 'record')}, ${notes}.`)
    await this.trace.breathe()
  }

  async records() {
    this.trace.begin('records')
    const geneses = new Map()
    for (const link of this.links) {
      if (!geneses.has(link.logId)) geneses.set(link.logId, await genesisOf(link.logId))
      await this.trace.check(
        () => aboutRecord(link),
        () => checkLink(link, geneses.get(link.logId)),
      )
    }
    const logs = counted(geneses.size, 'log')
    this.trace.end(`${counted(this.links.length, 'record')} of ${logs}.`, this.links.length === 0)
  }

  /** W0, and which statements there are: texts by type, in the order of the document. */
  proofs() {
    this.trace.begin('proofs')
    if (this.told === null) throw new Refused('W0', 'it holds no statements and proofs; write it with --history') // [W0]
    try {
      this.content = take(this.told, Proofs)
    } catch (error) {
      if (!(error instanceof ShapeError)) throw error
      const field = error.message || 'proofs'
      throw new Refused('W0', `its proofs have a missing, unknown or ill-typed member: ${field}`) // [W0]
    }
    const seals = this.links.flatMap((link) => sealTokens(link, this.content.run_id))
    const byType = new Map()
    for (const text of new Set([...this.content.statements, ...seals])) {
      const typ = this.#typeOf(text)
      if (byType.has(typ)) byType.get(typ).push(text)
      else byType.set(typ, [text])
    }
    const about = `of run ${this.content.run_id} of workflow ${this.content.workflow_id}`
    const sizes = new Map([...byType].map(([typ, texts]) => [typ, texts.length]))
    const credentials = sizes.get(WorkloadCredential.typ) ?? 0
    const delegations = sizes.get(Delegation.typ) ?? 0
    // The verdict counts as the command line does: what vouches for a key or hands down a grant is no statement of it.
    const statements = [...sizes.values()].reduce((sum, size) => sum + size, 0) - credentials - delegations
    const beside = [[credentials, 'credential'], [delegations, 'delegation']].filter(([size]) => size > 0)
    const counts = [[statements, 'statement'], ...beside].map(([size, noun]) => counted(size, noun))
    this.trace.end(`${counts.join(', ')} ${about}.`)
    return byType
  }

  #typeOf(text) {
    try {
      return typeOf(text)
    } catch (error) {
      this.trace.current.items.push({ state: 'bad', about: () => aboutToken(text) })
      throw error
    }
  }

  /** W1: the credentials. */
  async workers(texts) {
    this.trace.begin('credentials')
    for (const text of texts) {
      await this.trace.check(
        (found) => aboutToken(text, found?.token, this.#vouched(found?.anchor)),
        async () => {
          const found = await this.credentials.add(text, this.believed) // [W1]
          this.#used(found.anchor)
          return found
        },
      )
    }
    this.trace.end(`${counted(texts.length, 'credential')}.`, texts.length === 0)
  }

  /** W2: the grant. */
  async grant(text) {
    this.trace.begin('grant')
    if (text === undefined) throw new Refused('W2', 'it holds no grant, and a run has one') // [W2]
    const { chain } = await this.#checkGrant(text, () => verifyGrant(text, this.believed)) // [W2]
    this.chain = chain
    const { sub, iss, mode } = chain.grant.claims
    this.trace.end(`On behalf of ${sub}, by ${iss}; ${mode === 'enforce' ? 'enforced' : 'observed only'}.`)
  }

  #checkGrant(text, work) {
    return this.trace.check(
      (found) => aboutToken(text, found?.chain.grant, this.#vouched(found?.anchor)),
      async () => {
        const found = await work()
        this.#used(found.anchor)
        return found
      },
    )
  }

  async delegations(texts) {
    this.trace.begin('delegations')
    checkDepth(texts.length)
    for (const text of texts) {
      const longer = await this.trace.check(
        (found) => aboutToken(text, found?.leaf),
        () => verifyDelegation(text, this.chain, this.credentials), // [W2]
      )
      this.chain = longer
    }
    this.trace.end(texts.length === 0 ? 'The run holds the grant itself.' : `${counted(texts.length, 'delegation')}.`, texts.length === 0)
  }

  /** W6. */
  async renewals(texts) {
    this.trace.begin('renewals')
    this.chains = new Map([[this.chain.leaf.digest, this.chain]])
    for (const text of texts) {
      const { chain } = await this.#checkGrant(text, async () => {
        const before = this.chains.get((await parse(text, Grant)).claims.renews)
        if (before === undefined) {
          throw new Refused('W6', 'it holds a second grant, which renews nothing that the run stood on') // [W6]
        }
        return verifyRenewal(text, before, this.believed) // [W6]
      })
      this.chains.set(chain.leaf.digest, chain)
    }
    this.trace.end(texts.length === 0 ? 'The grant was not renewed.' : `${counted(texts.length, 'renewal')}.`, texts.length === 0)
  }

  /** W7; gives how many statements verify. */
  async agreements(challengeTexts, approvalTexts) {
    this.trace.begin('agreements')
    const challenges = new Map()
    for (const text of challengeTexts) {
      const token = await this.trace.check(
        (found) => aboutToken(text, found),
        () => verifyChallenge(text, this.credentials, this.chain.site), // [W7]
      )
      challenges.set(token.digest, token)
    }
    for (const { claims } of challenges.values()) {
      if (!this.chains.has(claims.grant)) throw new Refused('W7', 'it holds a challenge under another grant') // [W7]
    }
    for (const text of approvalTexts) {
      await this.trace.check(
        (found) => aboutToken(text, found?.token, this.#vouched(found?.anchor)),
        async () => {
          const token = await readApproval(text)
          const asked = challenges.get(token.claims.challenge)
          if (asked === undefined) {
            throw new Refused('W7', 'it holds an approval, and not the challenge that it is for') // [W7]
          }
          const anchor = await verifyApproval(token, asked, this.believed, this.chain.grant.claims.aud) // [W7]
          this.#used(anchor)
          return { token, anchor }
        },
      )
    }
    const said = `${counted(challenges.size, 'challenge')}, ${counted(approvalTexts.length, 'decision')} of people.`
    const isEmpty = challenges.size + approvalTexts.length === 0
    this.trace.end(isEmpty ? 'Nobody was asked.' : said, isEmpty)
    return challenges.size + approvalTexts.length
  }

  /** W8; gives how many count. */
  async permits(texts) {
    this.trace.begin('permits')
    let count = 0
    for (const text of texts) {
      const found = await this.#permit(text)
      if (found?.counts) {
        count += 1
        await this.trace.check(() => aboutToken(text, found.token, this.#vouched(found.anchor)), async () => {})
      } else {
        this.trace.note(() => aboutToken(text, found?.token))
      }
    }
    const others = texts.length > count ? ` ${counted(texts.length - count, 'other')} count for nothing.` : ''
    const isEmpty = texts.length === 0
    this.trace.end(isEmpty ? 'No message came with a permit.' : `${counted(count, 'permit')}.${others}`, count === 0)
    return count
  }

  async #permit(text) {
    try {
      const token = await parse(text, Permit)
      const anchor = await verifyAnchored(token, this.believed)
      const { aud, target } = token.claims
      const counts = aud === this.chain.grant.claims.aud && target === this.content.workflow_id
      if (counts) this.#used(anchor)
      return { token, anchor, counts } // [W8]
    } catch (error) {
      if (!(error instanceof Refused)) throw error
      return undefined
    }
  }

  /** W1: what the workers signed; tokens by type. */
  async statements(byType) {
    this.trace.begin('statements')
    const scope = { site: this.chain.site, namespace: this.chain.namespace }
    const said = new Map()
    for (const [typ, texts] of byType) {
      if (!ROLES.has(typ)) throw new Refused('W1', `it holds a ${typ}, which is no statement of this version`) // [W1]
      const [kind, role] = ROLES.get(typ)
      const tokens = []
      for (const text of texts) {
        const { token } = await this.trace.check(
          (found) => aboutToken(text, found?.token, found && `that of ${found.credential.sub}, by its credential`),
          async () => {
            const token = await parse(text, kind)
            return { token, credential: await this.credentials.verify(token, role, scope) } // [W1]
          },
        )
        tokens.push(token)
      }
      said.set(typ, tokens)
    }
    const counts = [...said].map(([typ, tokens]) => counted(tokens.length, NOUNS.get(typ)))
    this.trace.end(counts.length === 0 ? 'There is none.' : `${counts.join(', ')}.`, counts.length === 0)
    return said
  }

  /** W4. */
  async belonging(said) {
    this.trace.begin('belonging')
    const workflowId = this.content.workflow_id
    const claimsOf = (kind) => (said.get(kind.typ) ?? []).map((token) => token.claims)
    if (!this.chain.isFor(workflowId)) {
      throw new Refused('W4', `its grant is for workflow ${this.chain.authorization.workflow_id}, not ${workflowId}`) // [W4]
    }
    for (const each of [Request, Seal, Message, NexusCall].flatMap(claimsOf)) {
      if (each.workflow_id !== workflowId || !this.chains.has(each.grant)) {
        throw new Refused('W4', `it holds a statement of workflow ${each.workflow_id}, or under another grant`) // [W4]
      }
    }
    const asked = new Set(claimsOf(Request).map((each) => each.jti))
    for (const receipt of claimsOf(Receipt)) {
      // What the gate refused before it believed a request says so, and names the workflow.
      const isUnbelieved = receipt.request === null && receipt.workflow_id === workflowId
      if (!(isUnbelieved || asked.has(receipt.request) || (await this.#tells(receipt)))) {
        throw new Refused('W4', 'it holds a receipt for a request that it does not hold') // [W4]
      }
    }
    this.trace.end(`Workflow ${workflowId}, run ${this.content.run_id}.`)
  }

  /** Whether the receipt of a local activity, which has no other request, tells of one of this run. */
  async #tells({ core, request }) {
    const isOurs = core !== null && core.workflow_id === this.content.workflow_id && this.chains.has(core.grant)
    return isOurs && request === (await coreHash(core))
  }

  /** W5; gives the checkpoints of this run, smallest first. */
  async checkpoints() {
    this.trace.begin('checkpoints')
    const { site, namespace } = this.chain
    const origin = runOrigin(site, namespace, this.content.workflow_id, this.content.run_id)
    const mine = []
    for (const text of this.notes) {
      const checkpoint = await this.#readNote(text)
      if (checkpoint.origin === origin) mine.push({ text, checkpoint })
      else this.trace.note(() => aboutOther(text, checkpoint))
    }
    const largest = mine.reduce((size, { checkpoint }) => (checkpoint.size > size ? checkpoint.size : size), 0n)
    const heads = new Map()
    for (const { text, checkpoint } of mine) {
      await this.trace.check(
        (signed) => aboutCheckpoint(text, checkpoint, signed),
        async () => {
          const signed = await verifyCheckpoint(checkpoint, this.believed, checkpoint.size === largest) // [W5]
          this.keys.set(signed.notary.text, { role: 'notary', name: signed.notary.name, key: signed.notary.text })
          for (const name of signed.cosigned.keys()) this.keys.set(`w ${name}`, { role: 'witness', name, key: '' })
          return signed
        },
      )
      const held = heads.get(checkpoint.size) ?? checkpoint
      heads.set(checkpoint.size, held)
      if (!sameHead(held, checkpoint)) {
        throw new Refused('W3', `two checkpoints at ${checkpoint.size} events contradict each other`) // [W3]
      }
    }
    const sizes = [...heads.keys()].sort((one, other) => (one < other ? -1 : Number(one > other)))
    const { inclusion, consistency } = this.content
    if (sizes.length === 0 && inclusion.length + consistency.length > 0) {
      throw new Refused('W3', 'it has proofs, and no checkpoint of this run that they could be for') // [W3]
    }
    const said = sizes.length === 0 ? 'No notary has signed this history.' : `At ${sizes.join(', ')} events.`
    this.trace.end(said, sizes.length === 0)
    return sizes.map((size) => heads.get(size))
  }

  async #readNote(text) {
    try {
      return await readCheckpoint(text)
    } catch (error) {
      this.trace.current.items.push({ state: 'bad', about: () => aboutCheckpoint(text) })
      throw error
    }
  }

  /** W3: events. */
  async inclusion(heads) {
    this.trace.begin('inclusion')
    const head = heads.at(-1)
    for (const proof of this.content.inclusion) {
      const leaf = await leafHash(proof.leaf)
      const way = []
      await this.trace.check(
        () => aboutLeaf(proof, leaf, way, head),
        () => verifyInclusion(leaf, BigInt(proof.index), head.size, proofHashes(proof), head.root, way), // [W3]
      )
    }
    const count = this.content.inclusion.length
    this.trace.end(count === 0 ? 'No event is named.' : `${counted(count, 'event')}.`, count === 0)
  }

  /** W3: checkpoints. */
  async consistency(heads) {
    this.trace.begin('consistency')
    const told = new Map(this.content.consistency.map((each) => [`${each.earlier} ${each.later}`, each]))
    for (let at = 1; at < heads.length; at += 1) {
      const [earlier, later] = [heads[at - 1], heads[at]]
      const proof = told.get(`${earlier.size} ${later.size}`)
      await this.trace.check(
        () => aboutConsistency(earlier, later, proof),
        async () => {
          if (proof === undefined) {
            throw new Refused('W3', `nothing proves that the checkpoint at ${later.size} holds the one at ${earlier.size}`) // [W3]
          }
          await verifyConsistency(earlier.size, earlier.root, later.size, later.root, proofHashes(proof)) // [W3]
        },
      )
    }
    const pairs = Math.max(heads.length - 1, 0)
    this.trace.end(pairs === 0 ? 'There are no two checkpoints.' : `${counted(pairs, 'pair')}.`, pairs === 0)
  }

  #used(anchor) {
    this.keys.set(anchor.kid, { role: anchor.typ[0], name: anchor.iss, key: anchor.kid })
  }

  #vouched(anchor) {
    return anchor && `in your trust file, as a key of ${anchor.iss}`
  }
}

function taken(byType, kind) {
  const texts = byType.get(kind.typ) ?? []
  byType.delete(kind.typ)
  return texts
}

function proofHashes(proof) {
  return proof.hashes.map((text) => {
    const bytes = fromBase64url(text)
    if (bytes === null) throw new Refused('W3', 'a proof cannot be read: not canonical base64url') // [W3]
    return bytes
  })
}

const sameHead = (one, other) =>
  equal(one.root, other.root) &&
  one.extensions.length === other.extensions.length &&
  one.extensions.every((line, at) => line === other.extensions[at])

// As Python's quote: encodeURIComponent leaves five characters more as they are.
const quoted = (text) =>
  encodeURIComponent(text).replace(/[!'()*]/g, (each) => `%${each.charCodeAt(0).toString(16).toUpperCase()}`)

/** The origin of the log of one run's events. */
export const runOrigin = (site, namespace, workflowId, runId) =>
  `${quoted(site).replaceAll('%2F', '/')}/namespaces/${quoted(namespace)}/workflows/${quoted(workflowId)}/runs/${quoted(runId)}`
