// The evidence document and its records: the rules Z5 to Z7 of exequatur/lineage/document.py, Z8 to Z10 of link.py.

import { Refused, concat, fromBase64url, fromHex, fromUtf8, sha256, toBase64url, utf8 } from './bytes.js'
import { JsonError, readJson } from './json.js'
import { ShapeError, take } from './shapes.js'
import { Evidence } from './statements.js'

export const MAX_BYTES = 64 * 1024 * 1024
const MAX_RECORDS = 200_000
const LONGEST_BODY = 16 * 1024 * 1024
const MOST_RECORDS = 2 ** 53
const LONGEST_RUN_ID = 200
const VERSION = 'exequatur evidence v1'
const ASCII = /^[\0-\x7f]*$/

/**
 * Read a document without believing it.
 *
 * @param {Uint8Array} bytes
 * @returns `{links, checkpoints, trust, proofs}`; each link is a record with `logId` and its body as bytes
 */
export function readDocument(bytes) {
  if (bytes.length > MAX_BYTES) throw new Refused('Z5', `it has more than ${MAX_BYTES} bytes`) // [Z5]
  const content = read(bytes)
  const version = content instanceof Map ? content.get('version') : undefined
  if (version !== VERSION) {
    const named = typeof version === 'string' ? `is of version “${version.slice(0, 80)}”` : 'names no version'
    throw new Refused('Z6', `it ${named}, and this viewer knows “${VERSION}”`) // [Z6]
  }
  let document
  try {
    document = take(content, Evidence)
  } catch (error) {
    if (!(error instanceof ShapeError)) throw error
    throw new Refused('Z6', `it has a missing, unknown or ill-typed member: ${error.message || 'document'}`) // [Z6]
  }
  if (document.logs.reduce((sum, log) => sum + log.records.length, 0) > MAX_RECORDS) {
    throw new Refused('Z5', `it has more than ${MAX_RECORDS} records`) // [Z5]
  }
  const links = document.logs.flatMap((log) => log.records.map((record) => linkOf(log.log_id, record)))
  return { links, checkpoints: document.checkpoints, trust: document.trust, proofs: document.proofs }
}

function read(bytes) {
  try {
    return readJson(fromUtf8(bytes))
  } catch (error) {
    if (error instanceof JsonError) throw new Refused('Z6', `it is not JSON as it has to be: ${error.message}`) // [Z6]
    if (error instanceof TypeError) throw new Refused('Z6', 'it is not UTF-8 text') // [Z6]
    throw error
  }
}

function linkOf(logId, record) {
  const body = fromBase64url(record.body)
  if (body === null) {
    const where = `record ${record.index} of log ${logId}`
    throw new Refused('Z7', `it has a body that is not canonical base64url: ${where}`) // [Z7]
  }
  return { ...record, logId, body }
}

/** The head of an empty log. */
export const genesisOf = async (logId) =>
  toBase64url(await sha256(concat(utf8('exequatur journal v1'), fromHex(logId))))

/**
 * Recompute the head of a record from it and the head before it.
 *
 * @param link of readDocument
 * @param {string} genesis of its log
 */
export async function checkLink(link, genesis) {
  const refuse = (rule, what) => {
    throw new Refused(rule, `log ${link.logId}: record ${link.index} ${what}`)
  }
  if (link.at < 0 || Object.is(link.at, -0)) refuse('Z8', 'has a time that no clock shows') // [Z8]
  if (link.index >= MOST_RECORDS || link.body.length > LONGEST_BODY) {
    refuse('Z8', 'has a position or a length that no journal writes') // [Z8]
  }
  const isFirst = link.previous === genesis
  if ((link.index === 0) !== isFirst) {
    refuse('Z10', 'is the first and does not follow from the genesis of its log, or is not and does') // [Z10]
  }
  const previous = fromBase64url(link.previous)
  if (previous === null) refuse('Z8', 'holds a value that no journal writes') // [Z8]
  const head = await sha256(concat(previous, await sha256(hashedBytes(link))))
  if (toBase64url(head) !== link.head) {
    refuse('Z9', 'does not follow from the head before it: it was edited, or stands elsewhere') // [Z9]
  }
}

function hashedBytes({ kind, at, request, run, attempt, body }) {
  const number = (write) => {
    const view = new DataView(new ArrayBuffer(8))
    write(view)
    return new Uint8Array(view.buffer)
  }
  const texts = [request, run].map((each) => (each === null ? null : utf8(each)))
  const fields = [
    utf8(kind),
    number((view) => view.setFloat64(0, at)),
    ...texts,
    attempt === null ? null : number((view) => view.setBigInt64(0, BigInt(attempt))),
    body,
  ]
  return concat(...fields.flatMap((each) => (each === null ? [Uint8Array.of(255, 255, 255, 255)] : [length(each), each])))
}

function length(bytes) {
  const view = new DataView(new ArrayBuffer(4))
  view.setUint32(0, bytes.length)
  return new Uint8Array(view.buffer)
}

/** The tokens of a seal that is of this run, as its own claims say; none of every other record. */
export function sealTokens(link, runId) {
  if (link.kind !== 'seal') return []
  let text
  let claims
  try {
    text = fromUtf8(link.body)
    const segments = text.split('~', 1)[0].split('.')
    if (!ASCII.test(text) || segments.length !== 3) return []
    const raw = fromBase64url(segments[1])
    claims = raw === null ? null : readJson(fromUtf8(raw), { halves: true })
  } catch {
    return []
  }
  const named = claims instanceof Map ? claims.get('run_id') : undefined
  const isName = typeof named === 'string' && named !== '' && utf8(named).length <= LONGEST_RUN_ID
  return isName && named === runId ? text.split('~') : []
}
