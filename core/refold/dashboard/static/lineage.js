// Draws the lineage. The list below the graph says the same; what is chosen stands in the address.
'use strict'

const SVG = 'http://www.w3.org/2000/svg'
const WIDTH = 196, HEAD = 66, ROW = 20, MOST_COLUMNS = 24
const svg = (tag, attributes = {}, ...children) => {
  const made = document.createElementNS(SVG, tag)
  for (const name in attributes) made.setAttribute(name, attributes[name])
  made.append(...children)
  return made
}
const cut = (text, length) => text.length > length ? `${text.slice(0, length - 1)}…` : text
const PATHS = { right: 'M5.2 9.4l2.6 2.6 5-5.6', wrong: 'M6.2 6.2l5.6 5.6M11.8 6.2l-5.6 5.6', behind: 'M9 4.8V9l2.6 2', incomplete: 'M5.4 9h7.2', unproved: 'M6.9 7.1a2.2 2.2 0 1 1 3.2 2c-.8.4-1.1.8-1.1 1.6M9 13v.2' }

let shown = null

function drawGraph(box) {
  const structure = box.dataset.graph
  if (shown && shown.box === box && shown.structure === structure) return update(box)
  const { nodes, edges, columns } = JSON.parse(structure)
  const layout = new dagre.graphlib.Graph()
  layout.setGraph({ rankdir: 'LR', nodesep: 22, ranksep: 62, marginx: 20, marginy: 20 })
  layout.setDefaultEdgeLabel(() => ({}))
  const rows = node => node.columns.slice(0, MOST_COLUMNS)
  for (const node of nodes) layout.setNode(node.id, { width: WIDTH, height: HEAD + (rows(node).length ? rows(node).length * ROW + 14 : 0) })
  for (const [from, to] of edges) layout.setEdge(from, to)
  dagre.layout(layout)
  const { width, height } = layout.graph()
  const picture = svg('svg', { width, height, viewBox: `0 0 ${width} ${height}`, role: 'group', 'aria-label': 'Lineage' })
  const lines = svg('g'), marked = svg('g'), tags = svg('g')
  picture.append(lines, marked)
  const by = new Map(nodes.map(node => [node.id, node]))
  const end = (id, column, out) => {
    const at = layout.node(id), row = column ? rows(by.get(id)).indexOf(column) : -1
    return [at.x + (out ? WIDTH : -WIDTH) / 2, at.y - at.height / 2 + (row < 0 ? HEAD / 2 : HEAD + 7 + (row + .5) * ROW)]
  }
  const curve = (a, b) => { const middle = (a[0] + b[0]) / 2; return `M${a[0]} ${a[1]}C${middle} ${a[1]} ${middle} ${b[1]} ${b[0]} ${b[1]}` }
  const parts = { nodes: new Map(), edges: [], columns: new Map(), tags: new Map(), lights: new Map() }
  for (const [from, to] of edges) {
    const line = svg('path', { class: 'edge', d: curve(end(from, '', true), end(to, '', false)) })
    lines.append(line)
    parts.edges.push({ from, to, line })
  }
  const query = box.dataset.query
  const address = (id, more = '') => `?around=${encodeURIComponent(id)}&${query}${more}`
  for (const node of nodes) {
    const at = layout.node(node.id), x = at.x - WIDTH / 2, y = at.y - at.height / 2
    const group = svg('g', { class: `node${node.id === box.dataset.around ? ' center' : ''}` })
    group.append(svg('rect', { class: 'box', x, y, width: WIDTH, height: at.height, rx: 10 }))
    const name = svg('text', { class: 'name', x: x + 14, y: y + 37 }), kind = svg('text', { class: 'kind', x: x + 14, y: y + 18 })
    name.textContent = cut(node.name, 19)
    kind.textContent = node.kind
    const light = svg('g', { class: 'light', transform: `translate(${x + 13} ${y + 42}) scale(.86)` }), word = svg('text', { class: 'word', x: x + 33, y: y + 54.5 })
    const head = svg('a', { class: 'head', href: address(node.id) }, svg('rect', { class: 'hit', x: x + 4, y: y + 4, width: WIDTH - 8, height: HEAD - 8, rx: 7 }), kind, ' ', name, ' ', light, word)
    const title = svg('title')
    title.textContent = node.name
    group.append(title, head)
    if (rows(node).length) group.append(svg('path', { class: 'rule', d: `M${x} ${y + HEAD}h${WIDTH}` }))
    rows(node).forEach((column, at) => {
      const top = y + HEAD + 7 + at * ROW, text = svg('text', { class: 'col', x: x + 14, y: top + 14 })
      text.textContent = cut(column, 24)
      const link = svg('a', { class: 'column', href: address(box.dataset.around || node.id, `&column=${encodeURIComponent(JSON.stringify([node.id, column]))}`), 'aria-label': `${node.name}, column ${column}` }, svg('rect', { class: 'hit', x: x + 4, y: top, width: WIDTH - 8, height: ROW, rx: 4 }), text)
      if (!box.dataset.around) link.setAttribute('href', `?${query}&column=${encodeURIComponent(JSON.stringify([node.id, column]))}`)
      parts.columns.set(JSON.stringify([node.id, column]), link)
      group.append(link)
    })
    picture.append(group)
    parts.nodes.set(node.id, group)
    parts.lights.set(node.id, { light, word, head })
    const [tx, ty] = end(node.id, '', false), rect = svg('rect', { y: ty - 9, height: 18, rx: 9 }), text = svg('text', { x: tx - 9, y: ty + 4, 'text-anchor': 'end' })
    const tag = svg('g', { class: 'tag' }, rect, text)
    tags.append(tag)
    parts.tags.set(node.id, { tag, rect, text, x: tx })
  }
  picture.append(tags)

  const reach = (start, links) => {
    const found = new Set([start])
    for (const one of found) for (const [from, to] of links) if (from === one) found.add(to)
    return found
  }
  const dim = (ids, keep) => {
    for (const [id, group] of parts.nodes) group.classList.toggle('dim', ids !== null && !ids.has(id))
    for (const { from, to, line } of parts.edges) {
      line.classList.toggle('dim', ids !== null && !keep(from, to))
      line.classList.toggle('on', ids !== null && keep(from, to))
    }
    for (const [id, { tag }] of parts.tags) tag.classList.toggle('dim', ids !== null && !ids.has(id))
  }
  const clear = () => {
    marked.replaceChildren()
    for (const link of parts.columns.values()) link.classList.remove('on')
    dim(null)
  }
  const pathOf = id => {
    clear()
    const up = reach(id, edges.map(([from, to]) => [to, from])), down = reach(id, edges)
    dim(new Set([...up, ...down]), (from, to) => (up.has(from) && up.has(to)) || (down.has(from) && down.has(to)))
  }
  const keys = columns.map(([a, b, c, d, direct]) => [JSON.stringify([a, b]), JSON.stringify([c, d]), direct])
  const columnPath = key => {
    clear()
    const up = reach(key, keys.map(([from, to]) => [to, from])), down = reach(key, keys)
    const [own] = JSON.parse(key)
    // What decides about all rows of a node leads to its head; from there it is no column's way.
    for (const [from, to] of keys) if (to === JSON.stringify([own, ''])) up.add(from), up.add(to)
    const ids = new Set([...up, ...down].map(one => JSON.parse(one)[0]))
    for (const [from, to, direct] of keys) {
      if (!((up.has(from) && up.has(to)) || (down.has(from) && down.has(to)))) continue
      const [a, b] = JSON.parse(from), [c, d] = JSON.parse(to)
      marked.append(svg('path', { class: `edge on${direct ? '' : ' indirect'}`, d: curve(end(a, b, true), end(c, d, false)) }))
    }
    for (const one of [...up, ...down]) parts.columns.get(one)?.classList.add('on')
    dim(ids, () => false)
  }
  const pinned = new URLSearchParams(location.search).get('column')
  const rest = () => { if (pinned && parts.columns.has(pinned)) columnPath(pinned); else clear() }
  for (const [id, group] of parts.nodes) {
    const head = group.querySelector('.head')
    for (const event of ['mouseenter', 'focus']) head.addEventListener(event, () => pathOf(id))
    for (const event of ['mouseleave', 'blur']) head.addEventListener(event, rest)
  }
  for (const [key, link] of parts.columns) {
    for (const event of ['mouseenter', 'focus']) link.addEventListener(event, () => columnPath(key))
    for (const event of ['mouseleave', 'blur']) link.addEventListener(event, rest)
  }
  box.replaceChildren(picture)
  shown = { box, structure, parts, by, live: '' }
  update(box)
  rest()
}

// What changes from moment to moment is written into the picture, which keeps the focus.
function update(box) {
  if (shown.live === box.dataset.live) return
  shown.live = box.dataset.live
  for (const [id, [tone, word, lag]] of Object.entries(JSON.parse(shown.live))) {
    const { light, word: text, head } = shown.parts.lights.get(id), { tag, rect, text: label, x } = shown.parts.tags.get(id), node = shown.by.get(id)
    light.setAttribute('class', `light ${tone}`)
    light.replaceChildren(...(PATHS[tone] ? [svg('circle', { cx: 9, cy: 9, r: 8 }), svg('path', { d: PATHS[tone] })] : tone ? [svg('circle', { cx: 9, cy: 9, r: 3 })] : []))
    text.textContent = cut(word, 24)
    tag.classList.toggle('none', !lag)
    label.textContent = lag
    const wide = lag.length * 6.6 + 14
    rect.setAttribute('width', wide)
    rect.setAttribute('x', x - 2 - wide)
    head.setAttribute('aria-label', `${node.kind} ${node.name}${word ? ` ${word}` : ''}${lag ? `, ${lag} behind` : ''}`)
  }
}

const drawLineage = () => { const box = document.getElementById('graph'); if (box) drawGraph(box) }
document.body.addEventListener('htmx:after:swap', drawLineage)
drawLineage()
