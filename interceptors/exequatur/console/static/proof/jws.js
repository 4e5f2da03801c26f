// Compact JWS with Ed25519 (RFC 7515, RFC 8037); the rules V1 to V7 of exequatur/statements/jws.py.

import { Refused, digest, fromBase64url, fromUtf8, signedBy, utf8 } from './bytes.js'
import { readJson } from './json.js'
import { ShapeError, take } from './shapes.js'

const THUMBPRINT = /^[A-Za-z0-9_-]{43}$/
const ASCII = /^[\0-\x7f]*$/
const LONGEST_HEADER = 512

function segmentsOf(token) {
  const segments = token.split('.', 4)
  if (segments.length !== 3 || segments[0].length > LONGEST_HEADER || !ASCII.test(token)) {
    throw new Refused('V2', 'A statement is not a compact JWS of three segments') // [V2]
  }
  return segments
}

function headerOf(segment) {
  const raw = fromBase64url(segment)
  if (raw === null) throw new Refused('V2', "A statement's header is not canonical base64url") // [V2]
  let header
  try {
    header = readJson(fromUtf8(raw), { halves: true })
  } catch {
    throw new Refused('V3', "A statement's header is not well-formed JSON without duplicates") // [V3]
  }
  const exact =
    header instanceof Map &&
    header.size === 3 &&
    ['alg', 'kid', 'typ'].every((name) => typeof header.get(name) === 'string') &&
    THUMBPRINT.test(header.get('kid'))
  if (!exact) throw new Refused('V3', "A statement's header must hold exactly alg, kid (a thumbprint) and typ") // [V3]
  return header
}

/** The `typ` that a token claims. */
export const typeOf = (token) => headerOf(segmentsOf(token)[0]).get('typ')

/**
 * Read a token without believing it.
 *
 * @param {string} token
 * @param kind one of statements.js
 * @returns `{kind, text, digest, kid, claims, header, payload}`; header and payload are as they were read
 */
export async function parse(token, kind) {
  const { name, typ, maxBytes, shape } = kind
  if (token.length > maxBytes) {
    throw new Refused('V1', `${name} has ${token.length} bytes, more than ${maxBytes}`) // [V1]
  }
  const segments = segmentsOf(token)
  const header = headerOf(segments[0])
  if (header.get('alg') !== 'EdDSA') {
    throw new Refused('V4', `${name} is signed with an algorithm that is not allowed`) // [V4]
  }
  if (header.get('typ') !== typ) {
    throw new Refused('V5', `A statement of another type stands where ${name} is expected`) // [V5]
  }
  const [raw, signature] = segments.slice(1).map(fromBase64url)
  if (raw === null || signature === null) throw new Refused('V2', `${name} is not canonical base64url`) // [V2]
  let payload
  try {
    payload = readJson(fromUtf8(raw))
  } catch {
    throw new Refused('V6', `The claims of ${name} are not well-formed JSON without duplicates`) // [V6]
  }
  try {
    return { kind, text: token, digest: await digest(token), kid: header.get('kid'), claims: take(payload, shape), header, payload, signature }
  } catch (error) {
    if (!(error instanceof ShapeError)) throw error
    const field = error.message.slice(0, 200) || 'claims'
    throw new Refused('V6', `${name} has a missing, unknown or ill-typed field: ${field}`) // [V6]
  }
}

/** Check a token's signature with the public key for its `kid`. */
export async function checkSignature(token, x) {
  const signed = utf8(token.text.slice(0, token.text.lastIndexOf('.')))
  if (!(await signedBy(x, token.signature, signed))) {
    throw new Refused('V7', `The signature of ${token.kind.name} is wrong`) // [V7]
  }
}

/** The hash of the replayed part of a request, which is the request's `jti`. */
export function coreHash(core) {
  const fields = [core.grant, core.workflow_id, core.original_run_id, core.seq, core.activity_type, core.prev]
  const written = fields.map((each) => (typeof each === 'bigint' ? String(each) : JSON.stringify(each)))
  return digest(`["exequatur request core v1",${written.join(',')}]`)
}
