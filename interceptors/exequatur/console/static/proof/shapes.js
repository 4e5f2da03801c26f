// What a value may be: a small part of JSON Schema, with integers and numbers told apart as in statements.
//
// A record takes exactly its own members: an unknown one is refused, so that nothing that was signed is ignored.

import { Real } from './json.js'

export const text = (limits = {}) => ({ type: 'string', ...limits })
export const integer = (limits = {}) => ({ type: 'integer', ...limits })
/** `finite` refuses what is too large for a double. */
export const number = (limits = {}) => ({ type: 'number', ...limits })
export const one = (...values) => ({ enum: values })
export const list = (items, limits = {}) => ({ type: 'array', items, ...limits })
export const flag = () => ({ type: 'boolean' })
/** Any JSON, as it was read. */
export const json = () => ({})
/** An object of any members, as it was read. */
export const members = () => ({ type: 'object' })
/** A member that may be left out, and then is `value`. */
export const or = (value, shape) => ({ ...shape, default: value })
/** A member that may be null or left out. */
export const maybe = (shape) => ({ ...shape, nullable: true, default: null })

/** An object with exactly these members. */
export const record = (properties) => ({ type: 'record', properties })

export const DIGEST = text({ pattern: '^[A-Za-z0-9_-]{43}$' })
export const NAME = text({ minLength: 1, maxLength: 1000 })
export const TIME = number({ minimum: 0, maximum: 32503680000, finite: true })

/** A value that has not its shape; `message` is where. */
export class ShapeError extends Error {}

const patterns = new Map()

/**
 * Take a value that was read as a shape demands it.
 *
 * @param value of readJson
 * @param shape one of the above
 * @param {string} path where it stands, for the message
 * @returns plain values: records as objects with every member, the rest as it was read
 */
export function take(value, shape, path = '') {
  const refuse = () => {
    throw new ShapeError(path)
  }
  if (value === null && shape.nullable) return null
  if (shape.enum !== undefined) {
    const found = shape.enum.find((each) => sameJson(each, value))
    return found === undefined ? refuse() : found
  }
  switch (shape.type) {
    case undefined:
      return value
    case 'string':
      return typeof value === 'string' && fits(value, shape) ? value : refuse()
    case 'boolean':
      return typeof value === 'boolean' ? value : refuse()
    case 'integer':
      return isInteger(value) && within(value, shape) ? value : refuse()
    case 'number': {
      const taken = value instanceof Real ? value.value : isInteger(value) ? Number(value) : refuse()
      return within(taken, shape) && (!shape.finite || Number.isFinite(taken)) ? taken : refuse()
    }
    case 'object':
      return value instanceof Map ? value : refuse()
    case 'array':
      if (!Array.isArray(value) || value.length < (shape.minItems ?? 0) || value.length > (shape.maxItems ?? Infinity)) {
        return refuse()
      }
      return value.map((each, at) => take(each, shape.items, `${path}.${at}`))
    default:
      return value instanceof Map ? taken(value, shape.properties, path) : refuse()
  }
}

function taken(value, properties, path) {
  const found = Object.create(null)
  let seen = 0
  for (const [name, shape] of Object.entries(properties)) {
    const where = path === '' ? name : `${path}.${name}`
    if (value.has(name)) {
      seen += 1
      found[name] = take(value.get(name), shape, where)
    } else if ('default' in shape) {
      found[name] = shape.default
    } else {
      throw new ShapeError(where)
    }
  }
  if (seen < value.size) {
    const unknown = [...value.keys()].find((name) => !Object.hasOwn(properties, name))
    throw new ShapeError(path === '' ? unknown : `${path}.${unknown}`)
  }
  return found
}

const isInteger = (value) => typeof value === 'number' || typeof value === 'bigint'

function fits(value, { minLength = 0, maxLength = Infinity, pattern }) {
  if (value.length < minLength) return false
  // Characters are counted, not the halves that some of them are stored as.
  if (value.length > maxLength && (value.length > 2 * maxLength || [...value].length > maxLength)) return false
  if (pattern === undefined) return true
  if (!patterns.has(pattern)) patterns.set(pattern, new RegExp(pattern))
  return patterns.get(pattern).test(value)
}

function within(value, { minimum, maximum, exclusiveMinimum, exclusiveMaximum }) {
  return (
    (minimum === undefined || value >= minimum) &&
    (maximum === undefined || value <= maximum) &&
    (exclusiveMinimum === undefined || value > exclusiveMinimum) &&
    (exclusiveMaximum === undefined || value < exclusiveMaximum)
  )
}

const plain = (value) => (value instanceof Real ? value.value : typeof value === 'boolean' ? Number(value) : value)

/** Whether two values are equal as the reference compares them: 1, 1.0 and true are, and the order of members is not. */
export function sameJson(one, other) {
  const [a, b] = [plain(one), plain(other)]
  // A BigInt and a Number are equal by `==` only.
  if (isInteger(a) && isInteger(b)) return a == b
  if (a === null || b === null || typeof a !== 'object' || typeof b !== 'object') return a === b
  if (Array.isArray(a) || Array.isArray(b)) {
    return Array.isArray(a) && Array.isArray(b) && a.length === b.length && a.every((each, at) => sameJson(each, b[at]))
  }
  const [mine, yours] = [a, b].map((each) => (each instanceof Map ? each : new Map(Object.entries(each))))
  return mine.size === yours.size && [...mine].every(([name, each]) => yours.has(name) && sameJson(each, yours.get(name)))
}
