'use strict';
// What the page does with its numbers: it shows them where one points, draws the head that is
// chosen, and shows answers that were computed without a head. It computes no model and asks for
// nothing: all it knows stands in the page.
(() => {
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

  // Choosing a head ---------------------------------------------------------------------------

  const state = { block: 0, number: 0, token: null, without: null };
  if (data.chosen) [state.block, state.number] = data.chosen;

  const which = (number) => (number < 0 ? 'mean of all heads' : `head ${number}`);

  // The page opens with the pictures of its first choice.
  function choose(block, number, opening = false) {
    state.block = block;
    state.number = number;
    for (const button of all('.small')) {
      const on = Number(button.dataset.block) === block && Number(button.dataset.number) === number;
      button.setAttribute('aria-pressed', String(on));
      button.tabIndex = on ? 0 : -1;
    }
    for (const button of all('.heads button')) {
      const at = data.heads[Number(button.dataset.block)][Number(button.dataset.head)];
      button.setAttribute('aria-pressed', String(at === number));
    }
    const large = document.querySelector('.chosen .map');
    large.dataset.block = block;
    large.dataset.array = data.weights[block];
    for (const figure of all('.map[data-view="head"]')) {
      const own = Number(figure.dataset.block);
      const averaged = number < 0 && figure.classList.contains('square');
      const called = averaged ? which(-1) : which(data.heads[own][place(own)]);
      figure.querySelector('.which').textContent = figure === large ? `block ${own}, ${called}` : called;
      if (!opening) paint(figure);
    }
    lines();
  }

  // Lines between tokens: from who listens, on the left, to who is listened to.
  function lines() {
    const large = document.querySelector('.chosen .map');
    const { rows, at } = matrix(large);
    const space = 'http://www.w3.org/2000/svg';
    const drawing = document.createElementNS(space, 'svg');
    drawing.setAttribute('viewBox', `0 0 100 ${rows}`);
    drawing.setAttribute('preserveAspectRatio', 'none');
    drawing.setAttribute('aria-hidden', 'true');
    const drawn = [];
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < rows; j++) {
        const weight = at(i, j);
        if (!(weight >= 0.01)) continue;
        const line = document.createElementNS(space, 'line');
        for (const [key, value] of Object.entries({ x1: 1, y1: i + 0.5, x2: 99, y2: j + 0.5 })) {
          line.setAttribute(key, value);
        }
        line.style.strokeWidth = 0.6 + 4 * weight;
        drawn.push({ line, i, weight });
        drawing.append(line);
      }
    }
    const fill = (kind) => element('span', { className: `fill ${kind}` });
    const left = element('ol', { style: `--rows:${rows}` }, ...data.tokens.map((token, i) => {
      const button = element('button', { type: 'button' }, fill('by'), isolated(token));
      for (const event of ['pointerenter', 'focus', 'click']) {
        button.addEventListener(event, () => show(i));
      }
      return element('li', {}, button);
    }));
    const right = element('ol', { style: `--rows:${rows}` }, ...data.tokens.map((token, j) => {
      const item = element('li', {}, fill('to'), isolated(token));
      item.addEventListener('pointerenter', () => show(j));
      return item;
    }));
    left.setAttribute('aria-label', 'tokens that listen');
    right.setAttribute('aria-label', 'tokens that are listened to');
    const heard = element('div', { className: 'heard' });
    heard.setAttribute('role', 'status');

    function show(token) {
      state.token = token;
      for (const { line, i, weight } of drawn) {
        line.style.opacity = token === null ? weight ** 0.8 : i === token ? 0.25 + 0.75 * weight : 0.03;
      }
      all('.fill', left).forEach((each, i) => each.style.setProperty('--share', token === null ? 0 : at(i, token)));
      all('.fill', right).forEach((each, j) => each.style.setProperty('--share', token === null ? 0 : at(token, j)));
      all('button', left).forEach((each, i) => each.setAttribute('aria-pressed', String(i === token)));
      if (token === null) {
        heard.replaceChildren(element('p', { textContent: 'Point at a token, or reach it with the Tab key, to see what it listens to and who listens to it.' }));
        return;
      }
      const best = (weight) => data.tokens.map((name, i) => [weight(i), name])
        .sort((a, b) => b[0] - a[0]).slice(0, 5).filter(([value]) => value > 0);
      const told = (kind, before, found) => element('p', {},
        element('span', { className: `key ${kind}` }), before, ...found.flatMap(([value, name], n) => [
          n ? ', ' : ' ', element('b', {}, isolated(name)), ' ',
          element('span', { className: 'w', textContent: shown(value) }),
        ]));
      const own = () => element('b', {}, isolated(data.tokens[token]));
      heard.replaceChildren(
        told('to', element('span', {}, own(), ' listens to'), best((j) => at(token, j))),
        told('by', element('span', {}, 'To ', own(), ' listen'), best((i) => at(i, token))),
      );
    }

    document.getElementById('lines').replaceChildren(
      element('h3', { textContent: `block ${state.block}, ${which(state.number)}` }),
      element('div', { className: 'web' }, left, drawing, right), heard, ...switchOf(),
    );
    show(state.token);
  }

  function rove(grid) {
    grid.addEventListener('keydown', (event) => {
      const rows = all('.row', grid).map((row) => all('.small', row));
      const i = rows.findIndex((row) => row.includes(document.activeElement));
      const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (i < 0 || !move) return;
      event.preventDefault();
      const row = rows[Math.min(rows.length - 1, Math.max(0, i + move[0]))];
      const j = rows[i].indexOf(document.activeElement) + move[1];
      const next = row[Math.min(row.length - 1, Math.max(0, j))];
      choose(Number(next.dataset.block), Number(next.dataset.number));
      next.focus();
    });
  }

  // Answers without a head --------------------------------------------------------------------

  // A switch for the chosen head, and a place for what the answer is without it.
  function switchOf() {
    const index = data.answer.effects.findIndex((each) => each.block === state.block && each.head === state.number);
    if (index < 0) return [];
    const button = element('button', { type: 'button', className: 'switch', textContent: 'the answer without this head' });
    button.dataset.effect = index;
    button.setAttribute('aria-pressed', String(state.without === index));
    button.addEventListener('click', () => silence(index));
    const best = element('p', { className: 'best' });
    best.dataset.best = '';
    return [element('p', {}, button), best];
  }

  function silence(index) {
    const { answer } = data;
    state.without = state.without === index ? null : index;
    const found = state.without === null ? answer : answer.effects[state.without];
    for (const button of all('[data-effect]')) {
      button.setAttribute('aria-pressed', String(Number(button.dataset.effect) === state.without));
    }
    for (const list of all('.bars[data-answer]')) {
      all('li', list).forEach((row, i) => {
        row.querySelector('.value').textContent = found.values[i];
        const bar = row.querySelector('.bar');
        const share = found.shares[i];
        if (bar.style.getPropertyValue('--share') !== '' && share >= 0 && share <= 1) {
          bar.style.setProperty('--share', share);
        }
      });
    }
    for (const best of all('[data-best]')) {
      if (state.without === null) {
        best.replaceChildren();
        continue;
      }
      const back = element('button', { type: 'button', textContent: 'put it back' });
      back.addEventListener('click', () => silence(state.without));
      const head = `head ${found.head} of block ${found.block}`;
      if (found.best === '') best.replaceChildren(`These are the numbers without ${head}; `, back);
      else {
        best.replaceChildren(
          `Without ${head} the answer is \u201c`, element('strong', {}, isolated(found.best)), '\u201d; ', back,
        );
      }
    }
  }

  document.documentElement.classList.add('live');
  all('.map').forEach(answering);
  all('.grid').forEach(rove);
  all('.small').forEach((button) => button.addEventListener('click', () => {
    choose(Number(button.dataset.block), Number(button.dataset.number));
  }));
  all('.heads button').forEach((button) => button.addEventListener('click', () => {
    const block = Number(button.dataset.block);
    choose(block, data.heads[block][Number(button.dataset.head)]);
  }));
  all('.effect').forEach((button) => button.addEventListener('click', () => silence(Number(button.dataset.effect))));
  if (data.chosen) choose(state.block, state.number, true);
  document.documentElement.classList.add('ready');
})();
