// Bytes and the texts that stand for them. Each decoder takes exactly one text for one value, as the ones in Python do.

const encoder = new TextEncoder()
const BASE64URL = /^[A-Za-z0-9_-]*$/
const BASE64 = /^[A-Za-z0-9+/]*$/
// What the last character may be where a group of four is not full: the bits that stand for nothing are zero.
const LAST = { 2: 'AQgw', 3: 'AEIMQUYcgkosw048' }
const PIECE = 0x8000

/** A rule of the reference that does not hold. */
export class Refused extends Error {
  constructor(rule, reason) {
    super(reason)
    this.rule = rule
  }
}

export const utf8 = (text) => encoder.encode(text)

/** Text of UTF-8 bytes; throws TypeError where they are none. A byte order mark is a character like others. */
export const fromUtf8 = (bytes) => new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)

/** Canonical base64url without padding (RFC 4648, section 5), or null. */
export const fromBase64url = (text) =>
  isCanonical(text, BASE64URL) ? decoded(text.replaceAll('-', '+').replaceAll('_', '/')) : null

/** Canonical base64 with padding (RFC 4648, section 4), or null. */
export function fromBase64(text) {
  const bare = text.replace(/={1,2}$/, '')
  return text.length % 4 === 0 && isCanonical(bare, BASE64) ? decoded(bare) : null
}

// One pattern for all of it, with groups of four, would overflow the stack where the text is long.
function isCanonical(text, alphabet) {
  const rest = text.length % 4
  return rest !== 1 && alphabet.test(text) && (rest === 0 || LAST[rest].includes(text.at(-1)))
}

function decoded(text) {
  const characters = atob(text)
  const bytes = new Uint8Array(characters.length)
  for (let at = 0; at < characters.length; at += 1) bytes[at] = characters.charCodeAt(at)
  return bytes
}

export function toBase64(bytes) {
  let characters = ''
  for (let at = 0; at < bytes.length; at += PIECE) {
    characters += String.fromCharCode(...bytes.subarray(at, at + PIECE))
  }
  return btoa(characters)
}

export const toBase64url = (bytes) =>
  toBase64(bytes).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')

export const toHex = (bytes) => Array.from(bytes, (each) => each.toString(16).padStart(2, '0')).join('')

export const fromHex = (text) => Uint8Array.from(text.match(/../g), (each) => parseInt(each, 16))

export function concat(...parts) {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

export const equal = (one, other) => one.length === other.length && one.every((each, at) => each === other[at])

export const sha256 = async (bytes) => new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))

/** SHA-256 of a text, base64url. */
export const digest = async (text) => toBase64url(await sha256(utf8(text)))

/** The thumbprint of an Ed25519 key (RFC 7638): its `kid`. */
export const thumbprint = (x) => digest(`{"crv":"Ed25519","kty":"OKP","x":"${x}"}`)

const keys = new Map()
const MOST_KEYS = 1024

async function keyOf(x) {
  if (!keys.has(x)) {
    if (keys.size === MOST_KEYS) keys.clear()
    const bytes = fromBase64url(x)
    const usable = bytes !== null && bytes.length === 32 && !isSmall(bytes)
    const options = ['raw', bytes, { name: 'Ed25519' }, false, ['verify']]
    keys.set(x, usable ? await crypto.subtle.importKey(...options).catch(unsupported) : null)
  }
  return keys.get(x)
}

// A point that is none is a wrong key. A browser without Ed25519 can say nothing about any key.
function unsupported(error) {
  if (error.name === 'NotSupportedError') throw error
  return null
}

// Points whose order divides eight, in every encoding that libraries take, without the sign. Some browsers refuse them.
const SMALL_ORDER = new Set([
  '00'.repeat(32),
  `01${'00'.repeat(31)}`,
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  `ec${'ff'.repeat(30)}7f`,
  `ed${'ff'.repeat(30)}7f`,
  `ee${'ff'.repeat(30)}7f`,
])

const isSmall = (point) => SMALL_ORDER.has(toHex([...point.subarray(0, 31), point[31] & 0x7f]))

/**
 * Whether a signature is by a key (Ed25519, RFC 8032). Points of small order are refused, as the reference does.
 *
 * @param {string} x the public key, base64url
 * @param {Uint8Array} signature
 * @param {Uint8Array} data
 */
export async function signedBy(x, signature, data) {
  const key = await keyOf(x)
  if (key === null || signature.length !== 64 || isSmall(signature)) return false
  return crypto.subtle.verify({ name: 'Ed25519' }, key, signature, data)
}
