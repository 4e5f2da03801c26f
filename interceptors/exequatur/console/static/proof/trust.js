// Whom the reader believes: the trust file, and the rules T1 to T4 of exequatur/statements/trust.py.

import { Refused, fromUtf8, thumbprint } from './bytes.js'
import { readJson } from './json.js'
import { checkSignature } from './jws.js'
import { readVerifierKey } from './note.js'
import { ShapeError, sameJson, take } from './shapes.js'
import { Anchor, TrustFile } from './statements.js'

const MAX_BYTES = 4 * 1024 * 1024
const AUTHORITY_TYPES = new Set(
  ['grant', 'workload', 'release', 'permit', 'approval', 'revocations'].map((name) => `exequatur-${name}+jwt`),
)
const IDENTITY = ['x', 'typ', 'iss', 'nbf']

const refuse = (reason) => {
  throw new Refused('trust', reason)
}

/**
 * Read a trust file.
 *
 * @param {Uint8Array} bytes
 * @returns `{anchors, notaries, witnesses, threshold}`: anchors by key id, verifier keys, how many witnesses are demanded
 */
export async function readTrust(bytes) {
  if (bytes.length > MAX_BYTES) refuse(`it is larger than ${MAX_BYTES >> 20} MiB, which no trust file is`)
  let content
  try {
    content = readJson(fromUtf8(bytes))
  } catch {
    refuse('it is not JSON, or has a member twice')
  }
  let file
  try {
    file = take(content, TrustFile)
  } catch (error) {
    refuse(`${shapeOf(error) || 'document'} is missing, unknown or ill-typed; it must be a JWK set`)
  }
  const anchors = new Map()
  for (const entry of file.keys) await add(anchors, entry)
  if (file.threshold > file.witnesses.length) {
    refuse(`threshold asks for ${file.threshold} of ${file.witnesses.length} witnesses`)
  }
  const [notaries, witnesses] = [await verifierKeys(file.notaries), await verifierKeys(file.witnesses)]
  return { anchors, notaries, witnesses, threshold: file.threshold }
}

async function add(anchors, entry) {
  let anchor
  try {
    anchor = take(entry, Anchor)
  } catch (error) {
    refuse(`a key has a missing, unknown or ill-typed member: ${shapeOf(error)}`)
  }
  if (anchor.kid !== (await thumbprint(anchor.x))) {
    refuse(`Key ${anchor.kid}: the kid must be the key's RFC 7638 thumbprint`)
  }
  if (anchor.typ.length !== 1 || !AUTHORITY_TYPES.has(anchor.typ[0])) {
    refuse(`Key ${anchor.kid}: typ must name exactly one of ${[...AUTHORITY_TYPES].sort().join(', ')}`)
  }
  const known = anchors.get(anchor.kid)
  if (known !== undefined && IDENTITY.some((name) => !sameJson(known[name], anchor[name]))) {
    refuse(`Key ${anchor.kid}: an anchor may be retired but not changed`)
  }
  if (known !== undefined && known.exp !== null && (anchor.exp === null || anchor.exp > known.exp)) {
    refuse(`Key ${anchor.kid}: a retired anchor may not be put back`)
  }
  anchors.set(anchor.kid, anchor)
}

async function verifierKeys(texts) {
  const keys = []
  for (const text of texts) {
    const key = await readVerifierKey(text)
    if (typeof key === 'string') refuse(key)
    keys.push(key)
  }
  return keys
}

function shapeOf(error) {
  if (!(error instanceof ShapeError)) throw error
  return error.message
}

/**
 * Check that a key that may has signed a statement.
 *
 * @param token of parse
 * @param trust of readTrust
 * @returns the anchor that signed it
 */
export async function verifyAnchored(token, trust) {
  const { kid, kind, claims } = token
  const anchor = trust.anchors.get(kid)
  if (anchor === undefined) throw new Refused('T1', `The trust store has no key ${kid}`) // [T1]
  if (!anchor.typ.includes(kind.typ)) throw new Refused('T2', `Key ${kid} may not sign ${kind.typ}`) // [T2]
  if (claims.iat < anchor.nbf || (anchor.exp !== null && claims.iat > anchor.exp)) {
    throw new Refused('T3', `Key ${kid} was not valid when the statement was issued`) // [T3]
  }
  if (claims.iss !== anchor.iss) {
    throw new Refused('T4', `Key ${kid} does not belong to the statement's issuer`) // [T4]
  }
  await checkSignature(token, anchor.x) // [V7]
  return anchor
}
