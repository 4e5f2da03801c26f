// Verifies compact JWS with panva's jose. Reads [{token, jwk}, …] from standard input and prints, for each, what the
// token says and the key's thumbprint, or the code of the error with which it was refused.
import { text } from 'node:stream/consumers'
import { calculateJwkThumbprint, compactVerify, importJWK } from 'jose'

const verdicts = []
for (const { token, jwk } of JSON.parse(await text(process.stdin))) {
  try {
    const key = await importJWK(jwk, 'EdDSA')
    const { payload, protectedHeader } = await compactVerify(token, key, { algorithms: ['EdDSA'] })
    verdicts.push({
      header: protectedHeader,
      claims: JSON.parse(new TextDecoder().decode(payload)),
      thumbprint: await calculateJwkThumbprint(jwk),
    })
  } catch (error) {
    verdicts.push({ refused: error.code ?? String(error) })
  }
}
console.log(JSON.stringify(verdicts))
