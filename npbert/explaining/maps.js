// What the page does with its numbers. It computes no model and asks for nothing: all it knows
// stands in the page. These files are put together to one function, in the order of page.py.

const data = JSON.parse(document.getElementById('data').textContent);
const tip = document.getElementById('tip');
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

const isolated = (text) => element('bdi', { textContent: text });

// Numbers -----------------------------------------------------------------------------------

// A float16 as it is stored: sign, 5 bits of exponent, 10 of fraction.
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

const decoded = new Map();

function array(name) {
  if (!decoded.has(name)) {
    const { shape, power, data: text } = data.arrays[name];
    const bytes = atob(text);
    const values = new Float64Array(bytes.length / 2);
    const unit = 10 ** -power;
    for (let i = 0; i < values.length; i++) {
      values[i] = half(bytes.charCodeAt(2 * i) | (bytes.charCodeAt(2 * i + 1) << 8)) * unit;
    }
    decoded.set(name, { shape, values });
  }
  return decoded.get(name);
}

// As Python writes it with three digits, and with a true minus sign.
function shown(value) {
  if (Number.isNaN(value)) return 'hidden';
  if (value === 0) return '0';
  const three = value.toExponential(2);
  const power = Number(three.slice(three.indexOf('e') + 1));
  const text = power < -4 || power > 2
    ? `${three.slice(0, three.indexOf('e'))}e${power}`
    : Number(three).toFixed(2 - power);
  return text.replaceAll('-', '\u2212');
}

// Which number of `heads` a block shows for the chosen head; -1 is the mean of all.
function place(block) {
  const found = data.heads[block].indexOf(state.number);
  return found < 0 ? 0 : found;
}

// The matrix that a figure shows: its rows, its columns, and its values by place.
function matrix(figure) {
  const { shape, values } = array(figure.dataset.array);
  const view = figure.dataset.view;
  if (shape.length === 2) {
    return { rows: shape[0], columns: shape[1], at: (i, j) => values[i * shape[1] + j] };
  }
  const [heads, rows, width] = shape;
  const value = (h, i, j) => values[(h * rows + i) * width + j];
  if (view === 'joined') {
    return { rows, columns: heads * width, at: (i, j) => value(Math.floor(j / width), i, j % width) };
  }
  if (state.number < 0 && figure.classList.contains('square')) {
    return { rows, columns: width, at: (i, j) => mean(heads, (h) => value(h, i, j)) };
  }
  const head = place(Number(figure.dataset.block));
  return { rows, columns: width, at: (i, j) => value(head, i, j) };
}

function mean(n, value) {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += value(i);
  return sum / n;
}

// Colours -----------------------------------------------------------------------------------

function colour(kind, most, least, value) {
  const table = data.palettes[kind];
  const last = table.length / 6 - 2;
  if (Number.isNaN(value)) return `#${table.slice(-6)}`;
  const low = kind === 'signed' ? -most : least;
  const share = Math.min(1, Math.max(0, (value - low) / (most - low || 1)));
  const at = Math.round(share * last) * 6;
  return `#${table.slice(at, at + 6)}`;
}

function paint(figure) {
  const { rows, columns, at } = matrix(figure);
  const canvas = element('canvas', { width: columns, height: rows });
  const context = canvas.getContext('2d');
  const { kind, most, least } = figure.dataset;
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      context.fillStyle = colour(kind, Number(most), Number(least), at(i, j));
      context.fillRect(j, i, 1, 1);
    }
  }
  const image = figure.querySelector('.plot img');
  image.src = canvas.toDataURL();
  image.alt = `heat map of ${title(figure)}, ${rows} by ${columns}`;
  const table = figure.querySelector('.numbers');
  if (table) table.replaceWith(numbers(figure));
}

const title = (figure) => {
  const which = figure.querySelector('.which');
  return figure.querySelector('figcaption b').textContent + (which ? ` of ${which.textContent}` : '');
};

// Names of a figure's rows and columns; features have their numbers.
function names(figure) {
  const read = (where) => all(`${where} bdi`, figure.querySelector('.plot')).map((each) => each.textContent);
  return { down: read('.down'), across: read('.across') };
}

// Pointing at a number ----------------------------------------------------------------------

function point(figure, i, j, x, y) {
  const { at } = matrix(figure);
  const { down, across } = names(figure);
  tip.replaceChildren(
    ...(down[i] === undefined ? [] : [isolated(down[i]), ' \u2192 ']),
    across.length ? isolated(across[j]) : `feature ${j}`, ` ${shown(at(i, j))}`,
  );
  tip.classList.add('on');
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 4))}px`;
  tip.style.top = `${y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 18}px`;
}

function leave(figure) {
  tip.classList.remove('on');
  figure.querySelector('.cursor')?.remove();
}

function answering(figure) {
  const plot = figure.querySelector('.plot');
  const image = plot.querySelector('img');
  const cell = { i: 0, j: 0 };
  plot.tabIndex = 0;
  plot.setAttribute('role', 'group');
  plot.setAttribute('aria-label', `values of ${title(figure)}; arrow keys go from one to the next`);
  image.addEventListener('pointermove', (event) => {
    const { rows, columns } = matrix(figure);
    const box = image.getBoundingClientRect();
    cell.i = Math.min(rows - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * rows)));
    cell.j = Math.min(columns - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * columns)));
    point(figure, cell.i, cell.j, event.clientX, event.clientY);
  });
  image.addEventListener('pointerleave', () => leave(figure));
  plot.addEventListener('blur', () => leave(figure));
  plot.addEventListener('keydown', (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    const { rows, columns } = matrix(figure);
    cell.i = Math.min(rows - 1, Math.max(0, cell.i + move[0]));
    cell.j = Math.min(columns - 1, Math.max(0, cell.j + move[1]));
    const box = image.getBoundingClientRect();
    const width = box.width / columns;
    const height = box.height / rows;
    const mark = figure.querySelector('.cursor') ?? plot.appendChild(element('span', { className: 'cursor' }));
    mark.style.left = `${image.offsetLeft + cell.j * width}px`;
    mark.style.top = `${image.offsetTop + cell.i * height}px`;
    mark.style.width = `${width}px`;
    mark.style.height = `${height}px`;
    point(figure, cell.i, cell.j, box.left + (cell.j + 1) * width, box.top + (cell.i + 1) * height);
  });
  const button = (text, action) => {
    const made = element('button', { type: 'button', textContent: text });
    made.setAttribute('aria-label', `${text} of ${figure.querySelector('figcaption b').textContent}`);
    made.addEventListener('click', () => action(made));
    return made;
  };
  const table = button('Numbers', (made) => {
    const there = figure.querySelector('.numbers');
    made.setAttribute('aria-expanded', String(!there));
    if (there) there.remove();
    else figure.append(numbers(figure));
  });
  table.setAttribute('aria-expanded', 'false');
  figure.querySelector('.legend').append(
    element('span', { className: 'tools' }, table, button('Save SVG', () => save(figure))),
  );
}

function numbers(figure) {
  const { rows, columns, at } = matrix(figure);
  const { down, across } = names(figure);
  const head = (text, scope) => element('th', { scope }, isolated(text));
  const top = element('tr', {}, element('td'));
  for (let j = 0; j < columns; j++) top.append(head(across[j] ?? String(j), 'col'));
  const body = element('tbody');
  for (let i = 0; i < rows; i++) {
    const row = element('tr', {}, head(down[i] ?? '', 'row'));
    for (let j = 0; j < columns; j++) row.append(element('td', { textContent: shown(at(i, j)) }));
    body.append(row);
  }
  const made = element('div', { className: 'numbers', tabIndex: 0 },
    element('table', {}, element('thead', {}, top), body));
  made.setAttribute('role', 'group');
  made.setAttribute('aria-label', `numbers of ${title(figure)}`);
  return made;
}

// A map as SVG: a rectangle for every run of one colour, names, and what the colours mean.
function svg(figure) {
  const { rows, columns, at } = matrix(figure);
  const { down, across } = names(figure);
  const { kind, most, least } = figure.dataset;
  const paint = (value) => colour(kind, Number(most), Number(least), value);
  const safe = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
  const cell = across.length ? 18 : Math.max(2, Math.min(12, 960 / columns));
  const left = 8 + 7 * Math.max(0, ...down.map((name) => name.length));
  const top = 34 + (across.length ? 8 + 7 * Math.max(...across.map((name) => name.length)) : 0);
  const made = [];
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns;) {
      const fill = paint(at(i, j));
      let end = j + 1;
      while (end < columns && paint(at(i, end)) === fill) end++;
      made.push(`<rect x="${left + j * cell}" y="${top + i * 18}" width="${(end - j) * cell}" height="18" fill="${fill}"/>`);
      j = end;
    }
    if (down[i] !== undefined) {
      made.push(`<text x="${left - 6}" y="${top + i * 18 + 13}" text-anchor="end">${safe(down[i])}</text>`);
    }
  }
  across.forEach((name, j) => {
    const x = left + (j + 0.5) * cell + 4;
    made.push(`<text transform="translate(${x} ${top - 5}) rotate(-90)">${safe(name)}</text>`);
  });
  const below = top + rows * 18 + 14;
  for (let k = 0; k < 64; k++) {
    const value = kind === 'signed' ? (k / 63) * 2 - 1 : k / 63;
    made.push(`<rect x="${left + k * 2}" y="${below}" width="2.1" height="8" fill="${colour(kind, 1, 0, value)}"/>`);
  }
  const ends = all('.legend > span', figure).map((each) => each.textContent);
  made.push(`<text x="${left}" y="${below + 22}">${safe(ends[0])}</text>`);
  made.push(`<text x="${left + 128}" y="${below + 22}" text-anchor="end">${safe(ends[1])}</text>`);
  const width = Math.max(left + columns * cell, left + 128) + 12;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${below + 32}" `
    + `viewBox="0 0 ${width} ${below + 32}" font-family="monospace" font-size="11">`
    + `<rect width="100%" height="100%" fill="#fff"/><text x="8" y="18" font-size="13">${safe(title(figure))}</text>`
    + `${made.join('')}</svg>`;
}

function save(figure) {
  const url = URL.createObjectURL(new Blob([svg(figure)], { type: 'image/svg+xml' }));
  const which = figure.querySelector('.which')?.textContent.replace(/\W+/g, '-');
  const link = element('a', { href: url, download: `${figure.dataset.array}${which ? `.${which}` : ''}.svg` });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
