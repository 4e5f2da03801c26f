// What each statement says: its members, as exequatur/statements/models.py declares them (a test compares the two).

import { DIGEST, NAME, TIME, flag, integer, json, list, maybe, members, number, one, or, record, text } from './shapes.js'

const names = (limits) => list(NAME, limits)
const REASON = text({ maxLength: 400 })
const HEARD = or([], list(text(), { maxItems: 256 }))
const FORBIDS = or([], list(text({ minLength: 1, maxLength: 2000 }), { maxItems: 16 }))
const MODE = one('enforce', 'observe')
const NO_NAMES = or([], names())

const ACTOR = record({ sub: NAME })
ACTOR.properties.act = maybe(ACTOR)

const AUTHORIZATION = record({
  type: or('temporal_workflow', one('temporal_workflow')),
  workflow_type: NAME,
  workflow_id: NAME,
  task_queue: NAME,
  activities: names(),
  continues_as: NO_NAMES,
  input: DIGEST,
  reuse: one('once', 'retry', 'cron', 'schedule'),
  forbid: FORBIDS,
  until: maybe(TIME),
  child: maybe(one(true)),
  schedule: maybe(NAME),
})
const AUTHORIZATION_DETAILS = list(AUTHORIZATION, { minItems: 1, maxItems: 1 })

const RESTRICTION = record({ activities: maybe(names()), until: maybe(TIME), forbid: FORBIDS })

const CORE = {
  grant: DIGEST,
  workflow_id: NAME,
  original_run_id: NAME,
  seq: integer({ minimum: 1 }),
  activity_type: NAME,
  prev: DIGEST,
}

const statement = (name, typ, maxBytes, properties) => ({ name, typ, maxBytes, shape: record(properties) })

export const WorkloadCredential = statement('WorkloadCredential', 'exequatur-workload+jwt', 4096, {
  iss: NAME,
  sub: NAME,
  aud: NAME,
  iat: TIME,
  nbf: TIME,
  exp: TIME,
  jti: NAME,
  cnf: record({
    jwk: record({ kty: or('OKP', one('OKP')), crv: or('Ed25519', one('Ed25519')), x: DIGEST }),
  }),
  roles: list(one('request', 'receipt', 'delegate', 'seal')),
  namespaces: names(),
  task_queues: names(),
  activities: names(),
  code: maybe(record({ digest: DIGEST, assurance: one('self-asserted', 'attested') })),
  build: maybe(NAME),
  environment: maybe(NAME),
})

export const Grant = statement('Grant', 'exequatur-grant+jwt', 16_384, {
  ver: or(1, one(1, 2)),
  iss: NAME,
  sub: NAME,
  aud: NAME,
  iat: TIME,
  nbf: TIME,
  exp: TIME,
  start_by: TIME,
  jti: NAME,
  attributes: or(new Map(), members()),
  parents: NO_NAMES,
  act: maybe(ACTOR),
  authorization_details: AUTHORIZATION_DETAILS,
  bundle: DIGEST,
  policies: names(),
  mode: MODE,
  recorded_queues: NO_NAMES,
  open_messages: NO_NAMES,
  renews: maybe(DIGEST),
  renew_until: maybe(TIME),
})

export const Delegation = statement('Delegation', 'exequatur-delegation+jwt', 16_384, {
  iss: NAME,
  aud: NAME,
  iat: TIME,
  exp: TIME,
  jti: NAME,
  parent: DIGEST,
  parent_run_id: NAME,
  parent_first_run_id: maybe(NAME),
  start_fault: maybe(text()),
  depth: integer({ minimum: 1, maximum: 64 }),
  authorization_details: AUTHORIZATION_DETAILS,
  detached: maybe(one(true)),
})

export const Request = statement('Request', 'exequatur-request+jwt', 32_768, {
  ...CORE,
  iss: NAME,
  jti: DIGEST,
  iat: TIME,
  namespace: NAME,
  workflow_type: NAME,
  run_id: NAME,
  first_run_id: NAME,
  task_queue: NAME,
  args: DIGEST,
  seen: or([], list(integer())),
  knows: or([], list(text())),
  activity_id: maybe(NAME),
  local: or(false, flag()),
  start_fault: maybe(text()),
  restriction: maybe(RESTRICTION),
  answers: maybe(DIGEST),
  heard: HEARD,
  messages: maybe(DIGEST),
})

export const Receipt = statement('Receipt', 'exequatur-receipt+jwt', 12_288, {
  iss: NAME,
  iat: TIME,
  request: maybe(DIGEST),
  request_digest: maybe(DIGEST),
  activity_id: NAME,
  activity_type: NAME,
  workflow_id: maybe(NAME),
  run_id: maybe(NAME),
  attempt: integer({ minimum: 1 }),
  decision: one('allow', 'deny', 'none'),
  enforced: flag(),
  policies: NO_NAMES,
  reason: maybe(REASON),
  bundle: maybe(DIGEST),
  bundle_sequence: or(0, integer({ minimum: 0 })),
  revocations: maybe(record({ version: integer({ minimum: 0 }), age: number({ minimum: 0 }) })),
  facts: maybe(DIGEST),
  rechecks: or(0, integer({ minimum: 0 })),
  started: maybe(TIME),
  outcome: one('completed', 'failed', 'cancelled', 'async', 'denied', 'rejected', 'unavailable', 'revoked'),
  result: maybe(DIGEST),
  log: maybe(record({ id: NAME, index: integer({ minimum: 0 }), head: DIGEST })),
  core: maybe(record(CORE)),
  args: maybe(DIGEST),
  completed_by: maybe(NAME),
})

export const Seal = statement('Seal', 'exequatur-seal+jwt', 24_576, {
  iss: NAME,
  iat: TIME,
  grant: DIGEST,
  workflow_id: NAME,
  workflow_type: NAME,
  original_run_id: NAME,
  run_id: NAME,
  seq: integer({ minimum: 0 }),
  head: DIGEST,
  outcome: one('completed', 'failed', 'cancelled', 'continued'),
  start_fault: maybe(text()),
  next: maybe(record({ workflow_type: NAME, task_queue: NAME, input: DIGEST, restriction: maybe(RESTRICTION) })),
  heard: HEARD,
  messages: maybe(DIGEST),
  used: HEARD,
  used_until: maybe(TIME),
})

export const HeartbeatMark = statement('HeartbeatMark', 'exequatur-heartbeat+jwt', 2048, {
  iss: NAME,
  iat: TIME,
  request: DIGEST,
  run_id: NAME,
  attempt: integer({ minimum: 1 }),
  details: DIGEST,
})

export const Permit = statement('Permit', 'exequatur-permit+jwt', 12_288, {
  iss: NAME,
  sub: NAME,
  aud: NAME,
  iat: TIME,
  exp: TIME,
  jti: NAME,
  attributes: or(new Map(), members()),
  parents: NO_NAMES,
  act: maybe(ACTOR),
  kind: one('signal', 'query', 'update', 'activity', 'nexus'),
  target: NAME,
  run_id: maybe(NAME),
  name: NAME,
  task_queue: maybe(NAME),
  endpoint: maybe(NAME),
  service: maybe(NAME),
  args: DIGEST,
  bundle: DIGEST,
  policies: names(),
  mode: MODE,
})

export const Message = statement('Message', 'exequatur-message+jwt', 12_288, {
  iss: NAME,
  aud: NAME,
  iat: TIME,
  exp: TIME,
  jti: DIGEST,
  grant: DIGEST,
  workflow_id: NAME,
  original_run_id: NAME,
  run_id: NAME,
  kind: or('signal', one('signal')),
  target: NAME,
  target_run_id: maybe(NAME),
  name: NAME,
  args: DIGEST,
  decision: one('allow', 'deny'),
  policies: NO_NAMES,
  reason: maybe(REASON),
  bundle: DIGEST,
})

export const NexusCall = statement('NexusCall', 'exequatur-nexus+jwt', 12_288, {
  iss: NAME,
  iat: TIME,
  exp: TIME,
  jti: NAME,
  grant: DIGEST,
  namespace: NAME,
  workflow_id: NAME,
  workflow_type: NAME,
  original_run_id: NAME,
  run_id: NAME,
  first_run_id: NAME,
  endpoint: NAME,
  service: NAME,
  operation: NAME,
  args: DIGEST,
  restriction: maybe(RESTRICTION),
  start_fault: maybe(text()),
})

export const Challenge = statement('Challenge', 'exequatur-challenge+jwt', 16_384, {
  iss: NAME,
  iat: TIME,
  exp: TIME,
  request: DIGEST,
  request_digest: DIGEST,
  grant: DIGEST,
  sub: NAME,
  act: maybe(ACTOR),
  namespace: NAME,
  workflow_id: NAME,
  workflow_type: NAME,
  original_run_id: NAME,
  task_queue: NAME,
  activity_type: NAME,
  args: DIGEST,
  arguments: maybe(text({ maxLength: 4000 })),
  needs: list(
    record({ group: NAME, quorum: integer({ minimum: 1, maximum: 1000 }), ttl: number({ exclusiveMinimum: 0 }) }),
    { minItems: 1, maxItems: 8 },
  ),
  keys: list(DIGEST, { minItems: 1, maxItems: 8 }),
  policies: names(),
  reason: maybe(REASON),
  bundle: DIGEST,
})

export const Approval = statement('Approval', 'exequatur-approval+jwt', 8192, {
  iss: NAME,
  sub: NAME,
  aud: NAME,
  iat: TIME,
  exp: TIME,
  jti: NAME,
  verdict: one('approve', 'reject'),
  challenge: DIGEST,
  request: DIGEST,
  workflow_id: NAME,
  original_run_id: NAME,
  activity_type: NAME,
  args: DIGEST,
  groups: names({ maxItems: 8 }),
  reason: maybe(REASON),
  bundle: DIGEST,
  policies: names(),
})

const COUNT = integer({ minimum: 0, exclusiveMaximum: 2n ** 63n })

/** The evidence document, as exequatur/lineage/document.py declares it. */
export const Evidence = record({
  version: one('exequatur evidence v1'),
  logs: list(
    record({
      log_id: text({ pattern: '^[0-9a-f]{16}$' }),
      records: list(
        record({
          index: COUNT,
          at: number({ finite: true }),
          kind: text(),
          request: maybe(text()),
          run: maybe(text()),
          attempt: maybe(COUNT),
          body: text(),
          previous: DIGEST,
          head: DIGEST,
        }),
      ),
    }),
  ),
  checkpoints: list(text()),
  trust: maybe(members()),
  proofs: or(null, json()),
})

const HASHES = list(text())

/** Its member `proofs`, as exequatur/audit/bundle.py declares it. */
export const Proofs = record({
  version: or('exequatur proofs v1', one('exequatur proofs v1')),
  api: text(),
  workflow_id: text(),
  run_id: text(),
  statements: list(text()),
  inclusion: or([], list(record({ index: integer(), leaf: text(), hashes: HASHES }))),
  consistency: or([], list(record({ earlier: integer(), later: integer(), hashes: HASHES }))),
})

/** An authority's key in a trust file, as exequatur/statements/trust.py declares it. */
export const Anchor = record({
  kty: or('OKP', one('OKP')),
  crv: or('Ed25519', one('Ed25519')),
  kid: DIGEST,
  x: DIGEST,
  typ: list(text(), { minItems: 1 }),
  iss: NAME,
  nbf: TIME,
  exp: maybe(TIME),
})

const TEXTS = or([], list(text()))

/** The trust file, as exequatur/audit/trust.py declares it. */
export const TrustFile = record({
  keys: list(members()),
  ungoverned: TEXTS,
  observed: TEXTS,
  bundles: TEXTS,
  notaries: TEXTS,
  witnesses: TEXTS,
  threshold: or(0, integer({ minimum: 0 })),
})
