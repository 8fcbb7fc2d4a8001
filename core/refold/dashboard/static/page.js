// All pages work without this file. It refreshes them, draws their charts, and knows a few keys.
'use strict'

const TICK_MS = 2000

// htmx's own conditional triggers compile code, which the content security policy forbids.
const still = () => document.querySelector('main[data-still]')
const busy = () => document.hidden || still() || document.querySelector('details[open]') || getSelection()?.type === 'Range'
setInterval(() => { if (!busy()) document.body.dispatchEvent(new Event('refold:tick')) }, TICK_MS)
document.addEventListener('visibilitychange', () => { if (!document.hidden && !still()) document.body.dispatchEvent(new Event('refold:tick')) })

// Theme
const root = document.documentElement
const dark = () => root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches
function showTheme() {
  const button = document.getElementById('theme')
  if (button) button.hidden = false
}
document.addEventListener('click', event => {
  if (event.target.closest('#theme')) {
    root.dataset.theme = dark() ? 'light' : 'dark'
    try { localStorage.setItem('refold-theme', root.dataset.theme) } catch { /* for this page only, then */ }
    redraw(true)
    return
  }
  for (const menu of document.querySelectorAll('.more[open]')) if (!menu.contains(event.target)) menu.open = false
  const row = event.target.closest('tr.go')
  if (row && !event.target.closest('a, button, input') && getSelection()?.type !== 'Range') row.querySelector('a')?.click()
})

// Keys: / finds; g and a letter leads to a page.
const PLACES = { o: '/', n: '/lineage', i: '/incidents', d: '/dead-letters', r: '/rejected', s: '/sinks', l: '/latency', p: '/pressure', t: '/toil' }
let waiting = 0
document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input, textarea, select')) return
  if (event.key === 'Escape') {
    for (const menu of document.querySelectorAll('.more[open]')) {
      if (menu.contains(document.activeElement)) menu.querySelector('summary').focus()
      menu.open = false
    }
  } else if (event.key === '/') {
    event.preventDefault()
    document.getElementById('find')?.focus()
  } else if (event.key === 'g') {
    waiting = Date.now()
  } else if (Date.now() - waiting < 1500 && PLACES[event.key]) {
    location.assign(PLACES[event.key])
  }
})

// Charts
const drawn = new Map()
const probe = document.createElement('i')
probe.hidden = true
document.body.append(probe)
const colour = name => {
  probe.style.color = `var(${name})`
  return getComputedStyle(probe).color
}
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']
const clock = (seconds, days) => {
  const at = new Date(seconds * 1000)
  return days ? `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]}` : at.toISOString().slice(11, 16)
}
const figure = (value, unit) => {
  if (value == null) return '–'
  if (unit !== 's') return value.toLocaleString('en')
  return value < 1 ? `${Number((value * 1000).toPrecision(3))} ms` : `${Number(value.toPrecision(3))} s`
}
// Where a value has no neighbour, there is no line to see.
const alone = (u, at) => u.data[at].flatMap((value, n, all) => value != null && all[n - 1] == null && all[n + 1] == null ? [n] : [])
function draw(box) {
  const text = box.dataset.chart
  const known = drawn.get(box)
  if (known && known.text === text) return
  const data = JSON.parse(text)
  const table = [data.times, ...data.values]
  if (known && known.names === data.names.join()) {
    known.text = text
    known.plot.setData(table)
    return
  }
  known?.plot.destroy()
  box.replaceChildren()
  const axis = { stroke: colour('--soft'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false }, font: '12px system-ui, sans-serif' }
  const days = data.times.at(-1) - data.times[0] > 2 * 86400
  // clientWidth counts the padding, and a chart of that width would end beyond its card.
  const style = getComputedStyle(box)
  const width = () => Math.max(box.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight), 200)
  const plot = new uPlot({
    width: width(), height: box.classList.contains('low') ? 190 : 260, padding: [14, 22, 0, 4],
    tzDate: at => uPlot.tzDate(new Date(at * 1000), 'Etc/UTC'),
    cursor: { points: { size: 7 } },
    legend: { show: true, live: true },
    scales: { y: { range: (u, low, high) => [0, high > 0 ? high * 1.08 : 1] } },
    axes: [{ ...axis, space: 70, values: (u, ticks) => ticks.map(one => clock(one, days)) }, { ...axis, size: 62, values: (u, ticks) => ticks.map(one => figure(one, data.unit)) }],
    series: [{ label: 'UTC', value: (u, at) => at == null ? '–' : days ? new Date(at * 1000).toISOString().slice(0, 10) : clock(at) }, ...data.names.map((label, at) => ({
      label, stroke: colour(`--s${at + 1}`), width: 1.8, spanGaps: false, points: { size: 5, filter: alone },
      fill: at === 0 && data.names.length < 3 ? colour('--s1').replace('rgb(', 'rgba(').replace(')', ', .1)') : undefined,
      value: (u, value) => figure(value, data.unit),
    }))],
  }, table, box)
  drawn.set(box, { text, plot, names: data.names.join() })
  if (!known) new ResizeObserver(() => { const now = drawn.get(box); if (now) now.plot.setSize({ width: width(), height: now.plot.height }) }).observe(box)
}
function redraw(again) {
  if (typeof uPlot === 'undefined') return
  for (const [box, known] of drawn) {
    if (box.isConnected && !again) continue
    known.plot.destroy()
    drawn.delete(box)
  }
  document.querySelectorAll('.chart[data-chart]').forEach(draw)
}

function settle() {
  showTheme()
  redraw(false)
}
document.body.addEventListener('htmx:after:swap', settle)
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => redraw(true))
settle()
