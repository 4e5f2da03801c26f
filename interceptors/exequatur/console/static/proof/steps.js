// The steps of a verification, in their order, and what came of each.

/** What is checked, in words, and the rules of the reference that say so. */
export const STEPS = [
  ['trust', 'The trust file names whom you believe', 'trust', 'It is a JWK set; each key is named by its own thumbprint and signs one kind of statement.'],
  ['document', 'The file is an evidence document', 'Z5 to Z7', 'It is JSON of a known version with exactly its members, none twice, and each text that stands for bytes is the only one that does.'],
  ['records', 'Each journal record follows from the one before it', 'Z8 to Z10', 'SHA-256 of the head before and of the record gives the head after: a record that was edited or moved does not.'],
  ['proofs', 'It holds the statements and proofs of one run', 'W0, V2, V3', 'The part that ties the records to a run is complete, and every statement in it is a signed token of a kind that it names.'],
  ['credentials', 'The authority vouches for the workers', 'W1, C1, T1 to T4, V1 to V7', 'Each credential is signed with a credential key of your trust file, valid at that time.'],
  ['grant', 'The authority granted the run', 'W2, G1 to G3', 'The grant is signed with a grant key of your trust file, and says on whose behalf the run acts.'],
  ['delegations', 'What was handed down is no more than was held', 'W2, D1 to D8', 'Each delegation is signed by the parent run’s worker, follows from the token before it, and widens nothing.'],
  ['renewals', 'A renewed grant is the same grant', 'W6, Z1 to Z5', 'It renews the one that the run stood on, and differs in nothing but the time.'],
  ['agreements', 'People agreed to what they were asked', 'W7, O1 to O9', 'Each challenge is by a worker of this run; each approval is signed by the authority for exactly that challenge.'],
  ['permits', 'Messages were permitted', 'W8', 'A permit counts if an authority signed it for a message to this workflow. Anybody may have sent others: they count for nothing.'],
  ['statements', 'The workers signed what they did', 'W1, C2 to C7, V7', 'Each request, receipt, seal and message is signed with the key of a worker that holds the role, there and at that time.'],
  ['belonging', 'All of it belongs to this run', 'W4', 'The grant is for this workflow, what was signed stands on the grant, and each receipt is for a request that is here.'],
  ['checkpoints', 'A notary signed what the history was', 'W5, N1 to N9, L1 to L8', 'Each checkpoint of this run is signed by a notary of your trust file; the largest is cosigned by as many witnesses as it demands.'],
  ['inclusion', 'Each named event is in that history', 'W3, T1 to T5', 'The hash of the event, combined with the hashes of the proof, leads to the root that the notary signed (RFC 9162).'],
  ['consistency', 'Each checkpoint continues the one before', 'W3, T6', 'Nothing was changed, dropped or put in between two checkpoints (RFC 9162).'],
].map(([id, title, rules, about]) => ({ id, title, rules, about }))

const PAUSE = 40

/**
 * What came of each step so far: `state` is `unreached`, `running`, `good`, `bad` or `empty` (there was nothing to check).
 */
export class Trace {
  /** @param {(summary) => void} report called now and then, and when a step begins */
  constructor(report) {
    this.steps = STEPS.map((step) => ({ ...step, state: 'unreached', sentence: '', items: [] }))
    this.report = report
    this.last = performance.now()
  }

  get current() {
    return this.steps.find((step) => step.state === 'running')
  }

  /** Begin a step; the one before has to have ended. */
  begin(id) {
    this.steps.find((step) => step.id === id).state = 'running'
    this.report(this)
  }

  /**
   * Check one thing of the current step.
   *
   * @param about gives an item of about.js for what `work` found, or for undefined where it was refused
   * @param work throws Refused
   */
  async check(about, work) {
    const item = { state: 'bad', about: () => about(undefined) }
    this.current.items.push(item)
    const found = await work()
    item.state = 'good'
    item.about = () => about(found)
    await this.breathe()
    return found
  }

  /** What counts for nothing either way. */
  note(about) {
    this.current.items.push({ state: 'empty', about })
  }

  /** End the current step: what it found, or that there was nothing. */
  end(sentence, isEmpty = false) {
    Object.assign(this.current, { state: isEmpty ? 'empty' : 'good', sentence })
  }

  /** End the verification where a rule does not hold. */
  fail(error) {
    Object.assign(this.current, { state: 'bad', sentence: `${error.message} [${error.rule}]` })
  }

  // Where this runs beside a page, the page is drawn in between.
  async breathe() {
    if (performance.now() - this.last < PAUSE) return
    this.report(this)
    await new Promise((resolve) => setTimeout(resolve))
    this.last = performance.now()
  }
}
