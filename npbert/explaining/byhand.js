// One attention weight, followed by hand ---------------------------------------------------------

const hand = { block: 0, listens: data.listens ?? 0, heard: null };

function select(label, options, chosen, action) {
  const made = element('select', {}, ...options.map(([value, text]) => {
    const option = element('option', { textContent: text });
    option.value = value;
    option.selected = value === chosen;
    return option;
  }));
  made.addEventListener('change', () => action(made.value));
  return element('label', {}, `${label} `, made);
}

// Show how the head that is chosen, or the first there is, comes to one weight.
function follow() {
  const blocks = Object.keys(data.hand).map(Number);
  hand.block = blocks.includes(state.block) ? state.block : blocks[0];
  const { block } = hand;
  const own = data.hand[block];
  const head = place(block);
  const row = (name, i) => {
    const { shape, values } = array(name);
    const from = (head * shape[1] + i) * shape[2];
    return [...values.slice(from, from + shape[2])];
  };
  const weights = row(own.weights, hand.listens);
  const masked = own.masked_scores in data.arrays ? own.masked_scores : own.scores;
  const scores = row(masked, hand.listens);
  if (hand.heard === null) hand.heard = weights.indexOf(Math.max(...weights));
  const q = row(own.q_lin, hand.listens);
  const k = row(own.k_lin, hand.heard);
  const products = q.map((value, i) => value * k[i]);
  const sum = products.reduce((a, b) => a + b, 0);
  const score = row(own.scores, hand.listens)[hand.heard];
  const names = data.tokens.map((token, i) => [String(i), `${i} ${token}`]);
  const heads = blocks.flatMap((i) => data.heads[i].map((h) => [`${i} ${h}`, `block ${i}, head ${h}`]));
  const chosen = `${block} ${data.heads[block][head]}`;
  const keep = document.activeElement?.closest?.('#hand label');
  const at = keep ? all('#hand label').indexOf(keep) : -1;
  const choice = element('div', { className: 'choice' },
    select('head', heads, chosen, (value) => choose(...value.split(' ').map(Number))),
    select('who listens', names, String(hand.listens), (value) => {
      hand.listens = Number(value);
      hand.heard = null;
      follow();
    }),
    select('to whom', names, String(hand.heard), (value) => {
      hand.heard = Number(value);
      follow();
    }));
  const listens = data.tokens[hand.listens];
  const heard = data.tokens[hand.heard];
  const rest = own.width > q.length;
  const elements = table('elements', ['element', ...q.map((_, i) => String(i))], [
    [`query of ${listens}`, ...q.map(shown)], [`key of ${heard}`, ...k.map(shown)],
    ['product', ...products.map(shown)],
  ]);
  // A score that is hidden is no number, and e to the power of it is 0.
  const most = Math.max(...scores.filter((value) => !Number.isNaN(value)));
  const powers = scores.map((value) => (Number.isNaN(value) ? 0 : Math.exp(value - most)));
  const whole = powers.reduce((a, b) => a + b, 0);
  const part = data.tokens.length < data.length;
  const division = table('softmax', ['token', ...data.tokens], [
    ['score', ...scores.map(shown)], [`e^(score \u2212 ${shown(most)})`, ...powers.map(shown)],
    ['divided by their sum', ...powers.map((value) => shown(value / whole))],
    ['weight of the run', ...weights.map(shown)],
  ].slice(0, part ? 1 : 4).concat(part ? [['weight of the run', ...weights.map(shown)]] : []), hand.heard);
  const line = (...parts) => element('p', {}, ...parts);
  const result = (value) => element('strong', { textContent: value });
  document.getElementById('hand').replaceChildren(
    choice,
    line('1. Multiply, element by element:'), elements,
    rest
      ? line(`2. The page holds ${q.length} of ${own.width} elements, which sum to ${shown(sum)}; all of them sum to `, result(shown(score * Math.sqrt(own.width))), '.')
      : line('2. Sum the products: ', result(shown(sum)), '.'),
    line(`3. Divide by \u221a${own.width} = ${shown(Math.sqrt(own.width))}: `,
      result(shown(rest ? score : sum / Math.sqrt(own.width))), `. The score of the run, from all digits, is ${shown(score)}.`),
    line('4. Softmax over all the scores of ', element('b', {}, isolated(listens)),
      part ? `; the page holds ${data.tokens.length} of ${data.length} tokens:` : `: e to the power of each, divided by ${shown(whole)}, their sum:`),
    division,
    line(element('b', {}, isolated(listens)), ' listens to ', element('b', {}, isolated(heard)), ' with weight ',
      result(shown(weights[hand.heard])), '.'),
  );
  if (at >= 0) all('#hand label select')[at].focus();
}

function table(name, top, rows, column = -1) {
  const cell = (text, j) => element('td', { textContent: text, className: j === column + 1 ? 'now' : '' });
  const made = element('div', { className: `numbers ${name}`, tabIndex: 0 }, element('table', {},
    element('thead', {}, element('tr', {}, ...top.map((text) => element('th', { scope: 'col' }, isolated(text))))),
    element('tbody', {}, ...rows.map((row) => element('tr', {}, ...row.map((text, j) => (
      j ? cell(text, j) : element('th', { scope: 'row' }, isolated(text)))))))));
  made.setAttribute('role', 'group');
  made.setAttribute('aria-label', `${name}, followed by hand`);
  return made;
}
