// Who may have said it, and does it hang together: credentials, grants, delegations, renewals, challenges, approvals.
//
// The rules C1 to C7, G1 to G3 and D1 to D8 of exequatur/statements/verification.py, Z1 to Z5 of renewal.py, and O1 to O9
// of approvals.py.

import { Refused, thumbprint } from './bytes.js'
import { checkSignature, parse } from './jws.js'
import { covers, matches } from './patterns.js'
import { sameJson } from './shapes.js'
import { Approval, Challenge, Delegation, Grant, WorkloadCredential } from './statements.js'
import { verifyAnchored } from './trust.js'

const MAX_DEPTH = 64
const MAX_APPROVALS = 24
const SKEW = 60
const DUE = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/
const SAME = ['sub', 'jti', 'attributes', 'parents', 'act', 'mode', 'recorded_queues', 'open_messages', 'ver']

/** Workload credentials that came along, by the key that they confirm. */
export class Credentials {
  #held = new Map()

  /** Verify a credential and keep it; gives `{token, anchor}`. */
  async add(text, trust) {
    const token = await parse(text, WorkloadCredential)
    const anchor = await verifyAnchored(token, trust) // [C1]
    const kid = await thumbprint(token.claims.cnf.jwk.x)
    this.#held.set(kid, [...(this.#held.get(kid) ?? []), token.claims])
    return { token, anchor }
  }

  /**
   * Check a statement that a worker signed.
   *
   * @param token of parse
   * @param {string} role
   * @param scope `{site, namespace, taskQueue, activityType}`; undefined where it is not known
   * @returns the credential's claims
   */
  async verify(token, role, scope) {
    const { kid, claims: said } = token
    const { name } = token.kind
    const held = this.#held.get(kid)
    if (held === undefined) {
      throw new Refused('C4', `${name} came without a credential for the key that signed it`) // [C4]
    }
    const isValid = (each) => each.nbf <= said.iat && said.iat <= each.exp
    const claims = held.findLast(isValid) ?? held.at(-1)
    if (claims.aud !== scope.site) {
      throw new Refused('C2', `The credential behind ${name} is for ${claims.aud}, not for ${scope.site}`) // [C2]
    }
    if (!isValid(claims)) throw new Refused('C3', `${name} was issued when its worker's credential was not valid`) // [C3]
    if (!claims.roles.includes(role)) throw new Refused('C5', `${claims.sub} has no role ${role}, which ${name} needs`) // [C5]
    for (const [where, patterns, what] of [
      [scope.namespace, claims.namespaces, 'namespace'],
      [scope.taskQueue, claims.task_queues, 'task queue'],
      [scope.activityType, claims.activities, 'activity type'],
    ]) {
      if (where !== undefined && !matches(where, patterns)) {
        throw new Refused('C6', `The credential of ${claims.sub} does not cover ${what} ${where}`) // [C6]
      }
    }
    if (said.iss !== claims.sub) {
      throw new Refused('C7', `${name} names another issuer than its worker's credential`) // [C7]
    }
    await checkSignature(token, claims.cnf.jwk.x) // [C4]
    return claims
  }
}

/** A verified grant with the delegations under it, root first. */
export class Chain {
  constructor(grant, delegations = []) {
    this.grant = grant
    this.delegations = delegations
  }

  get leaf() {
    return this.delegations.at(-1) ?? this.grant
  }

  get authorization() {
    return this.leaf.claims.authorization_details[0]
  }

  get site() {
    return this.grant.claims.aud.slice(0, Math.max(this.grant.claims.aud.lastIndexOf('/'), 0))
  }

  get namespace() {
    return this.grant.claims.aud.slice(this.grant.claims.aud.lastIndexOf('/') + 1)
  }

  /** Whether the leaf is for this workflow; that of a schedule is for the ids that the schedule gives its runs. */
  isFor(workflowId) {
    const { workflow_id: named, reuse, schedule } = this.authorization
    if (reuse !== 'schedule') return workflowId === named
    return schedule !== null && workflowId.startsWith(`${named}-`) && DUE.test(workflowId.slice(named.length + 1))
  }
}

/** Verify a grant; `aud` is where it must be for, or null. Gives `{chain, anchor}`. */
export async function verifyGrant(text, trust, aud = null) {
  const token = await parse(text, Grant)
  const { claims } = token
  const anchor = await verifyAnchored(token, trust) // [G1]
  if (claims.aud.split('/').length !== 3 || (aud !== null && claims.aud !== aud)) {
    throw new Refused('G2', `The grant is for ${claims.aud}, not for ${aud ?? 'a domain, a cluster and a namespace'}`) // [G2]
  }
  if (!(claims.nbf < claims.exp && claims.iat <= claims.start_by && claims.start_by <= claims.exp)) {
    throw new Refused('G3', 'The times of the grant are not in order') // [G3]
  }
  return { chain: new Chain(token), anchor }
}

/** Check how many delegations there are. */
export function checkDepth(count) {
  if (count > MAX_DEPTH) throw new Refused('D3', `There are ${count} delegations; ${MAX_DEPTH} are allowed`) // [D3]
}

/** Verify the next delegation under a chain; gives the longer chain. */
export async function verifyDelegation(text, chain, credentials) {
  const token = await parse(text, Delegation)
  await credentials.verify(token, 'delegate', { site: chain.site, namespace: chain.namespace }) // [D1]
  const { claims: root } = chain.grant
  const [before, after] = [chain.leaf, token.claims]
  if (after.parent !== before.digest) throw new Refused('D2', 'A delegation does not follow the token before it') // [D2]
  if (after.depth !== chain.delegations.length + 1) {
    throw new Refused('D3', 'A delegation is not at the depth that it names') // [D3]
  }
  const [held, given] = [chain.authorization, after.authorization_details[0]]
  if (!covers(held.activities, given.activities)) {
    throw new Refused('D4', 'A delegation allows an activity that its parent does not hold') // [D4]
  }
  // The run of a renewable grant may have slept past its end; its child has its own renewed.
  if (after.exp > before.claims.exp || (after.iat > after.exp && root.renew_until === null)) {
    throw new Refused('D5', 'A delegation outlives its parent') // [D5]
  }
  if (after.aud !== root.aud) throw new Refused('D6', 'A delegation is for another place than its grant') // [D6]
  if (!held.forbid.every((each) => given.forbid.includes(each))) {
    throw new Refused('D7', 'A delegation leaves out what is forbidden to its parent') // [D7]
  }
  if (held.until !== null && (given.until === null || given.until > held.until)) {
    throw new Refused('D8', 'A delegation goes on after the end that its parent is restricted to') // [D8]
  }
  return new Chain(chain.grant, [...chain.delegations, token])
}

/** Verify a grant that takes the place of the one that a run stood on; gives `{chain, anchor}`. */
export async function verifyRenewal(text, before, trust) {
  const { chain, anchor } = await verifyGrant(text, trust, before.grant.claims.aud) // [Z1]
  const [after, root] = [chain.grant.claims, before.grant.claims]
  if (after.renews !== before.leaf.digest) {
    throw new Refused('Z2', 'The renewed grant renews another one than that of this run') // [Z2]
  }
  for (const name of SAME) {
    if (!sameJson(after[name], root[name])) {
      throw new Refused('Z3', `The renewed grant has another ${name.replaceAll('_', ' ')}`) // [Z3]
    }
  }
  const held = { ...before.authorization, child: before.delegations.length > 0 ? true : before.authorization.child }
  if (!sameJson(chain.authorization, held)) {
    throw new Refused('Z4', 'The renewed grant authorizes something else than the one before') // [Z4]
  }
  if (root.renew_until === null || after.renew_until === null || after.renew_until > root.renew_until) {
    throw new Refused('Z5', 'The renewed grant prolongs the lifetime of the run') // [Z5]
  }
  if (after.exp > after.renew_until) throw new Refused('Z5', "The renewed grant outlives the run's lifetime") // [Z5]
  return { chain, anchor }
}

/** Verify a challenge; gives the token. */
export async function verifyChallenge(text, credentials, site) {
  const token = await parse(text, Challenge)
  const { claims } = token
  const scope = { site, namespace: claims.namespace, taskQueue: claims.task_queue, activityType: claims.activity_type }
  await credentials.verify(token, 'receipt', scope) // [O1]
  if (!(claims.iat < claims.exp)) throw new Refused('O2', 'The challenge ends before it begins') // [O2]
  if (new Set(claims.needs.map((each) => each.group)).size !== claims.needs.length) {
    throw new Refused('O4', 'The challenge names a group twice') // [O4]
  }
  const people = claims.needs.reduce((sum, each) => sum + each.quorum, 0)
  if (people > MAX_APPROVALS) {
    throw new Refused('O4', `${people} people would have to agree, and an activity carries ${MAX_APPROVALS} approvals`) // [O4]
  }
  return token
}

/** Read an approval, to find out which challenge it is for. */
export const readApproval = (text) => parse(text, Approval)

/** Verify one person's decision about a verified challenge; gives the anchor that signed it. */
export async function verifyApproval(token, challenge, trust, aud) {
  const [{ claims }, asked] = [token, challenge.claims]
  if (!asked.keys.includes(token.kid)) {
    throw new Refused('O5', 'The approval is signed with a key that its challenge does not name') // [O5]
  }
  const anchor = await verifyAnchored(token, trust) // [O5]
  if (claims.aud !== aud) throw new Refused('O6', `The approval is for ${claims.aud}, not for ${aud}`) // [O6]
  if (claims.challenge !== challenge.digest) throw new Refused('O7', 'The approval is for another challenge') // [O7]
  for (const name of ['request', 'workflow_id', 'original_run_id', 'activity_type', 'args']) {
    if (claims[name] !== asked[name]) {
      throw new Refused('O7', `The approval names another ${name.replaceAll('_', ' ')} than its challenge`) // [O7]
    }
  }
  const spans = new Map(asked.needs.map((each) => [each.group, each.ttl]))
  if (claims.groups.length === 0 || !claims.groups.every((group) => spans.has(group))) {
    throw new Refused('O8', `${claims.sub} is not of a group that the challenge asks for`) // [O8]
  }
  if (!(asked.iat - SKEW <= claims.iat && claims.iat <= asked.exp)) {
    throw new Refused('O9', 'The approval was not given while the challenge was open') // [O9]
  }
  const longest = Math.max(...claims.groups.map((group) => spans.get(group)))
  if (!(claims.iat < claims.exp && claims.exp <= claims.iat + longest + 1)) {
    throw new Refused('O9', 'The approval ends before it begins, or counts for longer than it may') // [O9]
  }
  return anchor
}
