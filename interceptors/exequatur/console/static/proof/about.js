// What a step is about, in words and bytes, for people: plain data that a page shows as text.
//
// An item is `{title, facts, blocks, way}`: facts are `[label, value, kind]`, blocks are texts with the length of the
// whole where they were cut, a way is the path up a Merkle tree.

import { fromUtf8, toBase64, toHex } from './bytes.js'
import { showJson } from './json.js'

const LONGEST_BLOCK = 20_000
const LONGEST_BYTES = 2_000

const block = (label, text) => ({ label, text: text.slice(0, LONGEST_BLOCK), length: text.length })

const KINDS = {
  WorkloadCredential: ['Credential', (claims) => claims.sub],
  Grant: ['Grant', (claims) => `for ${claims.sub}`],
  Delegation: ['Delegation', (claims) => `to ${claims.authorization_details[0].workflow_id}`],
  Request: ['Request', (claims) => `number ${claims.seq}: ${claims.activity_type}`],
  Receipt: ['Receipt', (claims) => `${claims.activity_type}, attempt ${claims.attempt}: ${claims.decision}, ${claims.outcome}`],
  Seal: ['Seal', (claims) => `the run ${claims.outcome}`],
  HeartbeatMark: ['Heartbeat mark', (claims) => `attempt ${claims.attempt}`],
  Permit: ['Permit', (claims) => `${claims.kind} ${claims.name}`],
  Message: ['Message', (claims) => `${claims.kind} ${claims.name} to ${claims.target}`],
  NexusCall: ['Nexus call', (claims) => `${claims.service}/${claims.operation}`],
  Challenge: ['Challenge', (claims) => claims.activity_type],
  Approval: ['Approval', (claims) => `${claims.sub}: ${claims.verdict}`],
}

/** A token, and who has vouched for the key that signed it; what could not be read is shown as it is. */
export function aboutToken(text, token, voucher) {
  if (token === undefined) return { title: 'A statement', facts: [], blocks: [block('The token', text)] }
  const { kind, claims, kid, digest, header, payload, signature } = token
  const [name, what] = KINDS[kind.name]
  return {
    title: `${name}: ${what(claims)}`,
    facts: [
      ['Signed by', claims.iss],
      ['Key', kid, 'bytes'],
      ...(voucher === undefined ? [] : [['That key is', voucher]]),
      ['Issued', claims.iat, 'time'],
      ['SHA-256 of the token', digest, 'bytes'],
    ],
    blocks: [
      block('Header', showJson(header)),
      block('Claims', showJson(payload)),
      block('Signature (Ed25519, hex)', toHex(signature)),
      block('The token', text),
    ],
  }
}

/** A journal record with the head before it. */
export function aboutRecord(link) {
  const { body } = link
  const named = [
    ['Request', link.request],
    ['Run', link.run],
    ['Attempt', link.attempt],
  ]
  return {
    title: `Record ${link.index}: ${link.kind}`,
    facts: [
      ['Log', link.logId, 'bytes'],
      ['Written', link.at, 'time'],
      ...named.filter(([, value]) => value !== null).map(([label, value]) => [label, String(value)]),
      ['Head before it', link.previous, 'bytes'],
      ['Head after it', link.head, 'bytes'],
    ],
    blocks: [aboutBody(body)],
  }
}

function aboutBody(body) {
  try {
    const text = fromUtf8(body)
    return { ...block('Body', text), length: text.length }
  } catch {
    return { label: 'Body (hex)', text: toHex(body.subarray(0, LONGEST_BYTES)), length: 2 * body.length }
  }
}

/** A checkpoint, who has signed it and who has cosigned it when. */
export function aboutCheckpoint(text, checkpoint, signed) {
  if (checkpoint === undefined) return { title: 'A checkpoint', facts: [], blocks: [block('The note', text)] }
  const cosigned = [...(signed?.cosigned ?? [])].map(([name, at]) => [`Cosigned by ${name}`, Number(at), 'time'])
  return {
    title: `Checkpoint at ${checkpoint.size} events`,
    facts: [
      ['Log', checkpoint.origin],
      ['Root', toBase64(checkpoint.root), 'bytes'],
      ...(signed === undefined ? [] : [['Signed by', signed.notary.name]]),
      ...cosigned,
    ],
    blocks: [block('The note', text)],
  }
}

/** A checkpoint of another log, which this verification does not use. */
export const aboutOther = (text, checkpoint) => ({
  ...aboutCheckpoint(text, checkpoint),
  title: `Checkpoint of another log, at ${checkpoint.size}: not used`,
})

/** An event and its way up the tree, as far as it led. */
export function aboutLeaf(proof, leaf, way, head) {
  return {
    title: `Event ${BigInt(proof.index) + 1n}${eventType(proof.leaf)}`,
    facts: [
      ['Position', `leaf ${proof.index} of ${head.size}`],
      ['Hash of the leaf', toBase64(leaf), 'bytes'],
      ['Root that the notary signed', toBase64(head.root), 'bytes'],
    ],
    way: [
      { hash: toBase64(leaf) },
      ...way.map(({ sibling, side, reached }) => ({ sibling: toBase64(sibling), side, hash: toBase64(reached) })),
    ],
    blocks: [block('The event, as it was hashed', proof.leaf), block('Hashes of the proof', proof.hashes.join('\n'))],
  }
}

function eventType(leaf) {
  const found = /"eventType":"EVENT_TYPE_([A-Z_]{1,80})"/.exec(leaf.slice(0, 4 * LONGEST_BLOCK))
  return found === null ? '' : `: ${found[1].toLowerCase().replaceAll('_', ' ')}`
}

/** Two checkpoints and the proof between them. */
export function aboutConsistency(earlier, later, proof) {
  return {
    title: `The checkpoint at ${later.size} continues the one at ${earlier.size}`,
    facts: [
      [`Root at ${earlier.size}`, toBase64(earlier.root), 'bytes'],
      [`Root at ${later.size}`, toBase64(later.root), 'bytes'],
    ],
    blocks: proof === undefined ? [] : [block('Hashes of the proof', proof.hashes.join('\n'))],
  }
}

/** A key of the trust file. */
export const aboutAnchor = (anchor) => ({
  title: `Key for ${anchor.typ[0].replace(/^exequatur-(.*)\+jwt$/, '$1')}`,
  facts: [
    ['Issuer', anchor.iss],
    ['Key', anchor.kid, 'bytes'],
    ['Public key', anchor.x, 'bytes'],
    ['Valid from', anchor.nbf, 'time'],
    ...(anchor.exp === null ? [] : [['Retired', anchor.exp, 'time']]),
  ],
  blocks: [],
})

/** A notary or witness of the trust file. */
export const aboutParty = (key, role) => ({
  title: `${role}: ${key.name}`,
  facts: [
    ['Verifier key', key.text, 'bytes'],
    ['Public key', key.x, 'bytes'],
  ],
  blocks: [],
})
