// Shell patterns as Python's fnmatch reads them, because credentials and grants are written with those.

/** Whether a name matches one of the patterns. */
export const matches = (name, patterns) =>
  patterns.some((pattern) => pattern === name || pattern === '*' || fits([...name], read(pattern)))

/** Whether every pattern of `narrower` is certain to match only what `wider` matches. */
export const covers = (wider, narrower) =>
  narrower.every(
    (pattern) => wider.includes(pattern) || wider.includes('*') || (!/[*?[]/.test(pattern) && matches(pattern, wider)),
  )

const ANY = Symbol('*')

/** A list of ANY, or of functions that say whether they take a character. */
function read(pattern) {
  const characters = [...pattern]
  const parts = []
  for (let at = 0; at < characters.length; at += 1) {
    const each = characters[at]
    if (each === '*') {
      if (parts.at(-1) !== ANY) parts.push(ANY)
    } else if (each === '?') {
      parts.push(() => true)
    } else {
      const end = each === '[' ? closing(characters, at + 1) : -1
      parts.push(end < 0 ? (one) => one === each : setOf(characters.slice(at + 1, end)))
      if (end >= 0) at = end
    }
  }
  return parts
}

// The first ] ends a set, unless it stands first in it.
function closing(characters, from) {
  let at = from
  if (characters[at] === '!') at += 1
  if (characters[at] === ']') at += 1
  while (at < characters.length && characters[at] !== ']') at += 1
  return at < characters.length ? at : -1
}

function setOf(characters) {
  const chunks = chunksOf(characters)
  const isNegated = chunks[0][0] === '!'
  if (isNegated) {
    chunks[0].shift()
    // What stood behind it is no range any more: the dash is a character like others.
    if (chunks[0].length === 0 && chunks.length > 1) chunks.splice(0, 2, ['-', ...chunks[1]])
  }
  const ranges = rangesOf(chunks)
  return (one) => isNegated !== ranges.some(([low, high]) => low <= code(one) && code(one) <= high)
}

const code = (character) => character.codePointAt(0)

// A dash between two characters makes a range: the last of one chunk and the first of the next. A range that ends before
// it begins holds nothing.
function chunksOf(characters) {
  const chunks = []
  let from = 0
  let search = characters[0] === '!' ? 2 : 1
  for (;;) {
    const dash = characters.indexOf('-', search)
    if (dash < 0) break
    chunks.push(characters.slice(from, dash))
    from = dash + 1
    search = dash + 3
  }
  const rest = characters.slice(from)
  if (rest.length > 0) chunks.push(rest)
  else chunks.at(-1).push('-')
  for (let at = chunks.length - 1; at > 0; at -= 1) {
    const [before, after] = [chunks[at - 1], chunks[at]]
    if (code(before.at(-1)) > code(after[0])) chunks.splice(at - 1, 2, [...before.slice(0, -1), ...after.slice(1)])
  }
  return chunks
}

const rangesOf = (chunks) =>
  chunks.flatMap((chunk, number) =>
    chunk.map((one, at) => {
      const isJoined = at === chunk.length - 1 && number < chunks.length - 1
      return [code(one), code(isJoined ? chunks[number + 1][0] : one)]
    }),
  )

function fits(name, parts) {
  let [at, part, star, resume] = [0, 0, -1, 0]
  while (at < name.length) {
    if (part < parts.length && parts[part] !== ANY && parts[part](name[at])) {
      at += 1
      part += 1
    } else if (part < parts.length && parts[part] === ANY) {
      ;[star, resume] = [part, at]
      part += 1
    } else if (star >= 0) {
      resume += 1
      ;[at, part] = [resume, star + 1]
    } else {
      return false
    }
  }
  while (parts[part] === ANY) part += 1
  return part === parts.length
}
