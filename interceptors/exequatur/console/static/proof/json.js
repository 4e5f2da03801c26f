// Strict JSON (RFC 8259), read so that no value changes on the way.
//
// An object becomes a Map, so that no member name means anything here. A number without fraction and exponent is an
// integer: a Number up to 2^53, a BigInt beyond; every other number is a Real. So 1, 1.0 and 2^53 + 1 stay apart.
//
// J1  A member appears once in its object.
// J2  At most MAX_DEPTH levels of arrays and objects.
// J3  An integer has at most 4,300 digits.
// J4  Half a surrogate pair, which is no character, is noted: statements and documents must have none.

export const MAX_DEPTH = 200
const MAX_DIGITS = 4300

const PLAIN = /[^"\\\u0000-\u001f]*/y
const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?/y
const HEX = /[0-9a-fA-F]{4}/y
const ESCAPES = { '"': '"', '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' }
const HALF = /\p{Cs}/u

/** A number that was written with a fraction or an exponent. */
export class Real {
  constructor(text) {
    this.text = text
    this.value = Number(text)
  }
}

/** What is not JSON, or more than is read; `message` says what, and where. */
export class JsonError extends Error {}

/**
 * Read one JSON text.
 *
 * @param {string} text
 * @param {{halves?: boolean}} options `halves` lets half surrogate pairs pass (J4).
 * @returns the value; throws JsonError for J1 to J4.
 */
export function readJson(text, { halves = false } = {}) {
  let at = 0

  const fail = (what) => {
    throw new JsonError(`${what} at character ${at}`)
  }
  const match = (pattern) => {
    pattern.lastIndex = at
    const found = pattern.exec(text)
    if (found !== null) at = pattern.lastIndex
    return found
  }
  const skip = () => {
    while (text[at] === ' ' || text[at] === '\n' || text[at] === '\r' || text[at] === '\t') at += 1
  }
  const string = () => {
    let escaped = false
    at += 1
    let out = match(PLAIN)[0]
    while (text[at] === '\\') {
      const letter = text[at + 1]
      at += 2
      if (letter === 'u') {
        const code = match(HEX) ?? fail('an escape that is none')
        out += String.fromCharCode(parseInt(code[0], 16))
        escaped = true
      } else {
        out += ESCAPES[letter] ?? fail('an escape that is none')
      }
      out += match(PLAIN)[0]
    }
    if (text[at] !== '"') fail('a string that does not end, or has a control character')
    at += 1
    // Only an escape can write half of a pair: UTF-8 cannot.
    if (escaped && !halves && HALF.test(out)) fail('half a surrogate pair') // [J4]
    return out
  }
  const number = () => {
    const found = match(NUMBER) ?? fail('no value')
    const [whole, fraction, exponent] = found
    if (fraction !== undefined || exponent !== undefined) return new Real(whole)
    if (whole.length - (whole[0] === '-') > MAX_DIGITS) fail('an integer with too many digits') // [J3]
    const value = Number(whole)
    return Number.isSafeInteger(value) ? value + 0 : BigInt(whole)
  }
  const word = (name, value) => {
    if (!text.startsWith(name, at)) fail('no value')
    at += name.length
    return value
  }
  const array = (depth) => {
    const items = []
    at += 1
    skip()
    if (text[at] === ']') {
      at += 1
      return items
    }
    for (;;) {
      items.push(value(depth))
      skip()
      if (text[at] === ']') {
        at += 1
        return items
      }
      if (text[at] !== ',') fail('an array without comma or end')
      at += 1
    }
  }
  const object = (depth) => {
    const members = new Map()
    at += 1
    skip()
    if (text[at] === '}') {
      at += 1
      return members
    }
    for (;;) {
      skip()
      if (text[at] !== '"') fail('a member without a name')
      const name = string()
      if (members.has(name)) fail('a member that appears twice') // [J1]
      skip()
      if (text[at] !== ':') fail('a member without a value')
      at += 1
      members.set(name, value(depth))
      skip()
      if (text[at] === '}') {
        at += 1
        return members
      }
      if (text[at] !== ',') fail('an object without comma or end')
      at += 1
    }
  }
  const value = (depth) => {
    skip()
    const first = text[at]
    if (first === '{' || first === '[') {
      if (depth === MAX_DEPTH) fail('more levels than are read') // [J2]
      return first === '{' ? object(depth + 1) : array(depth + 1)
    }
    if (first === '"') return string()
    if (first === 't') return word('true', true)
    if (first === 'f') return word('false', false)
    if (first === 'n') return word('null', null)
    return number()
  }

  const read = value(0)
  skip()
  if (at < text.length) fail('something after the value')
  return read
}

/** Write a value that was read, for people: indented, with every number as it is. */
export function showJson(value, indent = '') {
  const inner = `${indent}  `
  if (value instanceof Map) {
    const members = [...value].map(([name, each]) => `${inner}${JSON.stringify(name)}: ${showJson(each, inner)}`)
    return members.length === 0 ? '{}' : `{\n${members.join(',\n')}\n${indent}}`
  }
  if (Array.isArray(value)) {
    const items = value.map((each) => inner + showJson(each, inner))
    return items.length === 0 ? '[]' : `[\n${items.join(',\n')}\n${indent}]`
  }
  if (value instanceof Real) return value.text
  return typeof value === 'bigint' ? String(value) : JSON.stringify(value)
}
