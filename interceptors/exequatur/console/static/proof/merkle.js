// The Merkle tree of RFC 9162; the rules T1 to T6 of exequatur/lineage/merkle.py.

import { Refused, concat, equal, sha256, utf8 } from './bytes.js'

const MAX_SIZE = 2n ** 63n
const MAX_PROOF = 64
const HASH_BYTES = 32
const LEAF = Uint8Array.of(0)
const NODE = Uint8Array.of(1)

export const emptyRoot = () => sha256(new Uint8Array())
export const leafHash = (text) => sha256(concat(LEAF, utf8(text))) // [T2]
const nodeHash = (left, right) => sha256(concat(NODE, left, right)) // [T2]

function checkBounds(low, high, hashes) {
  if (low < 0n || low >= MAX_SIZE || high < 0n || high >= MAX_SIZE) {
    throw new Refused('T1', 'a position or size in a proof is negative or does not fit 63 bits') // [T1]
  }
  if (hashes.length - 2 > MAX_PROOF) {
    throw new Refused('T1', `a proof of ${hashes.length - 2} hashes is longer than ${MAX_PROOF}`) // [T1]
  }
  if (hashes.some((each) => each.length !== HASH_BYTES)) {
    throw new Refused('T1', `a hash in a proof has not ${HASH_BYTES} bytes`) // [T1]
  }
}

/**
 * Verify that a leaf is in a tree (RFC 9162, section 2.1.3.2).
 *
 * @param {Uint8Array} leaf its hash
 * @param {bigint} index
 * @param {bigint} size
 * @param {Uint8Array[]} proof hashes from the leaf upwards
 * @param {Uint8Array} root
 * @param {object[]} way takes the way up: for each level the hash that was added, its side, and what both come to
 */
export async function verifyInclusion(leaf, index, size, proof, root, way = []) {
  checkBounds(index, size, [leaf, root, ...proof])
  if (index >= size) throw new Refused('T3', `leaf ${index} cannot be in a tree of ${size}`) // [T3]
  const about = `the inclusion proof of leaf ${index} in a tree of ${size}`
  let [node, last, reached] = [index, size - 1n, leaf]
  for (const sibling of proof) {
    if (last === 0n) throw new Refused('T4', `${about} has hashes left over`) // [T4]
    const isRight = (node & 1n) === 1n || node === last
    if (isRight) {
      reached = await nodeHash(sibling, reached)
      while ((node & 1n) === 0n && node !== 0n) [node, last] = [node >> 1n, last >> 1n]
    } else {
      reached = await nodeHash(reached, sibling)
    }
    ;[node, last] = [node >> 1n, last >> 1n]
    way.push({ sibling, side: isRight ? 'left' : 'right', reached })
  }
  if (last !== 0n) throw new Refused('T4', `${about} ends before the root`) // [T4]
  if (!equal(reached, root)) throw new Refused('T5', `${about} leads to another root`) // [T5]
}

/**
 * Verify that one tree is the beginning of another (RFC 9162, section 2.1.4.2).
 *
 * @param {bigint} size1
 * @param {Uint8Array} root1
 * @param {bigint} size2
 * @param {Uint8Array} root2
 * @param {Uint8Array[]} proof
 */
export async function verifyConsistency(size1, root1, size2, root2, proof) {
  checkBounds(size1, size2, [root1, root2, ...proof])
  if (size1 <= 0n || size1 > size2) {
    throw new Refused('T3', `a tree of ${size1} is not the beginning of one of ${size2} that can be proved`) // [T3]
  }
  const about = `the consistency proof from size ${size1} to ${size2}`
  if (size1 === size2) {
    if (proof.length > 0) throw new Refused('T4', `${about} has hashes left over`) // [T4]
    if (!equal(root1, root2)) throw new Refused('T6', `two trees of size ${size1} have different roots`) // [T6]
    return
  }
  // An earlier tree that is complete is a node of the later one, so its root is left out of the proof.
  const path = (size1 & (size1 - 1n)) === 0n ? [root1, ...proof] : proof
  if (proof.length === 0) throw new Refused('T4', `${about} is empty`) // [T4]
  let [node, last] = [size1 - 1n, size2 - 1n]
  while ((node & 1n) === 1n) [node, last] = [node >> 1n, last >> 1n]
  let [earlier, later] = [path[0], path[0]]
  for (const sibling of path.slice(1)) {
    if (last === 0n) throw new Refused('T4', `${about} has hashes left over`) // [T4]
    if ((node & 1n) === 1n || node === last) {
      earlier = await nodeHash(sibling, earlier)
      later = await nodeHash(sibling, later)
      while ((node & 1n) === 0n && node !== 0n) [node, last] = [node >> 1n, last >> 1n]
    } else {
      later = await nodeHash(later, sibling)
    }
    ;[node, last] = [node >> 1n, last >> 1n]
  }
  if (last !== 0n) throw new Refused('T4', `${about} ends before the root`) // [T4]
  if (!equal(earlier, root1)) {
    throw new Refused('T6', `${about} does not lead to the earlier root: leaves were changed, dropped or reordered`) // [T6]
  }
  if (!equal(later, root2)) throw new Refused('T6', `${about} does not lead to the later root`) // [T6]
}
