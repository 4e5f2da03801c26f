// Text for people. Every string may come from somebody who means ill: it becomes text, never markup.

const HIDDEN = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu
const HIDDEN_IN_BLOCK = /(?!\n)[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu
const LONGEST = 300

const escaped = (character) => {
  const code = character.codePointAt(0)
  const [letter, width] = code < 0x100 ? ['x', 2] : code < 0x10000 ? ['u', 4] : ['U', 8]
  return `\\${letter}${code.toString(16).padStart(width, '0')}`
}

/** One line: control, direction and invisible characters as escapes, cut where it is too long. */
export function shown(text, longest = LONGEST) {
  const cut = text.length > longest ? `… (${text.length.toLocaleString('en')} characters)` : ''
  return text.slice(0, longest).replace(HIDDEN, escaped) + cut
}

/** Lines, with the same characters as escapes. */
export const shownBlock = (text) => text.replace(HIDDEN_IN_BLOCK, escaped)

/**
 * Make an element.
 *
 * @param {string} name tag, then classes, as in `p.small.soft`
 * @param {...(Node|string|null)} children
 */
export function make(name, ...children) {
  const [tag, ...classes] = name.split('.')
  const element = document.createElement(tag)
  if (classes.length > 0) element.className = classes.join(' ')
  element.append(...children.filter((each) => each !== null))
  return element
}

const moment = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' })

/** A time in the viewer's zone, with UTC beside it. */
export function time(seconds) {
  const at = new Date(seconds * 1000)
  if (Number.isNaN(at.getTime())) return make('span', `${seconds} (no time of a calendar)`)
  const iso = at.toISOString()
  const element = make('time', moment.format(at), make('span.utc', ` ${iso.slice(0, 19).replace('T', ' ')} UTC`))
  element.dateTime = iso
  return element
}

/** A button that copies a text. */
export function copier(text, what) {
  const button = make('button.quiet.copy', 'Copy')
  button.type = 'button'
  button.setAttribute('aria-label', `Copy ${what}`)
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text)
      button.textContent = 'Copied'
    } catch {
      button.textContent = 'Select and copy by hand'
    }
    setTimeout(() => {
      button.textContent = 'Copy'
    }, 2000)
  })
  return button
}
