// Signed notes and checkpoints (C2SP); the rules N1 to N9 of exequatur/lineage/note.py and L1 to L8 of checkpoint.py.

import { Refused, concat, equal, fromBase64, signedBy, sha256, toBase64url, toHex, utf8 } from './bytes.js'
import { emptyRoot } from './merkle.js'

const MAX_BYTES = 256 * 1024
const MAX_SIGNATURES = 100
const ED25519 = 0x01
const COSIGNATURE = 0x04
const KEY_ID_BYTES = 4
const TIME_BYTES = 8
const MAX_SIZE = 2n ** 63n
const CONTROL = /[\0-\x09\x0b-\x1f]/
const LINE_CONTROL = /[\0-\x1f]/
// What Python calls white space, which is not quite what \s matches here.
const SPACE = /[\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/
const DECIMAL = /^(?:0|[1-9][0-9]{0,18})$/
const VERIFIER_KEY = /^([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)$/

const isName = (name) => name !== '' && !name.includes('+') && !SPACE.test(name) && !CONTROL.test(name)

/**
 * Read a verifier key, `<name>+<key id, hex>+<base64 of type and key>`.
 *
 * @returns `{name, id, type, x, text}`, or what is wrong with it as a string
 */
export async function readVerifierKey(text) {
  const [, name, id, encoded] = VERIFIER_KEY.exec(text) ?? []
  if (name === undefined) return 'not a verifier key, which is written <name>+<key id>+<base64 of type and key>'
  const raw = fromBase64(encoded)
  if (raw === null) return 'not canonical base64'
  if (!isName(name)) return 'a key name is not empty and has neither spaces nor plus signs'
  if (raw[0] !== ED25519 && raw[0] !== COSIGNATURE) return `the key of ${name} is not of type 0x01 or 0x04`
  if (raw.length !== 33) return `the key of ${name} has not 32 bytes`
  const found = (await sha256(concat(utf8(`${name}\n`), raw))).subarray(0, KEY_ID_BYTES)
  if (toHex(found) !== id) return `the key id of verifier key ${name} is ${id}, but its key has ${toHex(found)}`
  return { name, id: found, type: raw[0], x: toBase64url(raw.subarray(1)), text }
}

/** Read a note without believing it. */
export function readNote(note) {
  if (note.length > MAX_BYTES || utf8(note).length > MAX_BYTES) {
    throw new Refused('N1', `a note has more than ${MAX_BYTES} bytes`) // [N1]
  }
  if (CONTROL.test(note)) throw new Refused('N2', 'a note has a control character') // [N2]
  const at = note.lastIndexOf('\n\n')
  const lines = at < 0 ? [] : note.slice(at + 2).split('\n')
  if (lines.length < 2 || lines.at(-1) !== '') {
    throw new Refused('N3', 'a note has no signature lines below an empty line, or the last one does not end') // [N3] [N4]
  }
  if (lines.length > MAX_SIGNATURES + 1) throw new Refused('N1', `a note has more than ${MAX_SIGNATURES} signatures`) // [N1]
  return { text: `${note.slice(0, at)}\n`, signatures: lines.slice(0, -1).map((line, index) => readLine(line, index + 1)) }
}

function readLine(line, number) {
  const [dash, name, encoded, more] = line.split(' ')
  if (dash !== '—' || encoded === undefined || more !== undefined) {
    throw new Refused('N4', `signature line ${number} of a note is not an em dash, a key name and base64`) // [N4]
  }
  if (!isName(name)) throw new Refused('N5', `signature line ${number} of a note names no key`) // [N5]
  const raw = fromBase64(encoded)
  if (raw === null) throw new Refused('N6', `signature line ${number} of a note is not canonical base64`) // [N6]
  if (raw.length <= KEY_ID_BYTES) throw new Refused('N6', `signature line ${number} of a note holds no signature`) // [N6]
  return { name, id: raw.subarray(0, KEY_ID_BYTES), body: raw.subarray(KEY_ID_BYTES) }
}

const bodiesBy = (note, key) =>
  note.signatures.filter((line) => line.name === key.name && equal(line.id, key.id)).map((line) => line.body) // [N7]

/** Read the text of a note as a checkpoint: `{origin, size, root, extensions, note}`; nobody has verified it. */
export async function readCheckpoint(signed) {
  const note = readNote(signed)
  const lines = note.text.split('\n').slice(0, -1)
  if (lines.length < 3) {
    throw new Refused('L1', 'a checkpoint has fewer than three lines, or its last line does not end') // [L1]
  }
  const [origin, size, encoded, ...extensions] = lines
  if (!DECIMAL.test(size)) throw new Refused('L2', 'the size of a checkpoint is not a decimal number below 2**63') // [L2]
  const root = fromBase64(encoded)
  if (root === null) throw new Refused('L3', 'the root of a checkpoint is not canonical base64') // [L3]
  if ([origin, ...extensions].some((line) => line === '' || LINE_CONTROL.test(line))) {
    throw new Refused('L1', 'a line of a checkpoint is empty or has a control character') // [L1]
  }
  const count = BigInt(size)
  if (count >= MAX_SIZE) throw new Refused('L2', `the size of a checkpoint is not below ${MAX_SIZE}`) // [L2]
  if (root.length !== 32) throw new Refused('L3', 'the root of a checkpoint has not 32 bytes') // [L3]
  if (count === 0n && !equal(root, await emptyRoot())) {
    throw new Refused('L3', 'the root of a checkpoint of size 0 is not that of the empty tree') // [L3]
  }
  return { origin, size: count, root, extensions, note }
}

/**
 * Verify a checkpoint as the trust file demands it (W5).
 *
 * @param checkpoint of readCheckpoint
 * @param trust of readTrust
 * @param {boolean} demanding whether witnesses are demanded of this one
 * @returns `{notary, cosigned}`: who has signed, and when each witness says that it has cosigned
 */
export async function verifyCheckpoint(checkpoint, trust, demanding) {
  const { note } = checkpoint
  const notary = trust.notaries.find((key) => bodiesBy(note, key).length > 0)
  if (notary === undefined) {
    throw new Refused('W5', 'a checkpoint is by a notary that the trust file does not name') // [W5]
  }
  const threshold = demanding ? trust.threshold : 0
  checkParties(notary, trust.witnesses, threshold)
  for (const body of bodiesBy(note, notary)) {
    if (!(await signedBy(notary.x, body, utf8(note.text)))) {
      throw new Refused('N8', `a signature of ${notary.name} under a note is wrong`) // [N8] [L5]
    }
  }
  const cosigned = await cosignatures(note, trust.witnesses)
  if (cosigned.size < threshold) {
    throw new Refused(
      'L7',
      `the checkpoint of ${checkpoint.origin} at size ${checkpoint.size} is cosigned by ${cosigned.size} known ` +
        `witnesses, ${threshold} are demanded; let the others cosign it`,
    ) // [L7]
  }
  return { notary, cosigned }
}

function checkParties(notary, witnesses, threshold) {
  if (notary.type !== ED25519) throw new Refused('L5', `the notary's key ${notary.text} is one for cosignatures`) // [L5]
  const owners = new Map([[notary.x, notary]])
  for (const witness of witnesses) {
    if (witness.type !== COSIGNATURE) throw new Refused('L8', `the key ${witness.text} is not one for cosignatures`) // [L8]
    const owner = owners.get(witness.x) ?? witness
    owners.set(witness.x, owner)
    if (owner.text !== witness.text) {
      throw new Refused('L8', `${witness.name} and ${owner.name} share a key; give every party one of its own`) // [L8]
    }
  }
  const known = new Set(witnesses.map((each) => each.name)).size
  if (threshold > known) {
    throw new Refused('L8', `${threshold} witnesses are demanded and ${known} are known`) // [L8]
  }
}

async function cosignatures(note, witnesses) {
  const cosigned = new Map()
  for (const witness of witnesses) {
    for (const body of bodiesBy(note, witness)) {
      const time = body.subarray(0, TIME_BYTES)
      const at = time.length === 0 ? 0n : BigInt(`0x${toHex(time)}`)
      const text = utf8(`cosignature/v1\ntime ${at}\n${note.text}`)
      if (at <= 0n || at >= MAX_SIZE || !(await signedBy(witness.x, body.subarray(TIME_BYTES), text))) {
        throw new Refused('L6', `a cosignature of ${witness.name} under a checkpoint is wrong`) // [L6]
      }
      const before = cosigned.get(witness.name) ?? at
      cosigned.set(witness.name, at < before ? at : before) // [L7]
    }
  }
  return cosigned
}
