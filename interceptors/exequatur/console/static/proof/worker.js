// Runs the verification beside the page, which stays usable whatever the document is.

import { Session } from './session.js'

const session = new Session()

onmessage = async ({ data: { call, given } }) => {
  try {
    const found =
      call === 'verify'
        ? await session.verify(given.document, given.trust, (steps) => postMessage({ steps }))
        : session.items(given.id, given.from)
    postMessage({ found })
  } catch (error) {
    postMessage({ failed: String(error?.message ?? error) })
  }
}
