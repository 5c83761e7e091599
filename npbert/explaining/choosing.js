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
  if (!opening) {
    hand.heard = null;
    follow();
  }
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
