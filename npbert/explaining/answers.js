// Answers without a head, or without a word ------------------------------------------------------

const variants = data.answer ? [...data.answer.effects, ...data.answer.words] : [];

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
  const found = state.without === null ? answer : variants[state.without];
  for (const button of all('[data-effect]')) {
    button.setAttribute('aria-pressed', String(Number(button.dataset.effect) === state.without));
  }
  for (const list of all('.bars[data-answer]')) {
    list.querySelector('.winner')?.remove();
    all('li', list).forEach((row, i) => setBar(row, found.values[i], found.shares[i]));
    // An answer that is none of those shown joins them.
    if (found.winner) list.append(winner(found.best, ...found.winner));
  }
  for (const each of all('[data-winner]')) each.replaceChildren(isolated(found.best));
  const marked = found.marked ?? answer.marked;
  for (const each of all('[data-marked]')) {
    each.replaceChildren(...marked[Number(each.dataset.marked)].map(piece));
  }
  for (const best of all('[data-best]')) {
    if (state.without === null) {
      best.replaceChildren();
      continue;
    }
    const back = element('button', { type: 'button', textContent: 'put it back' });
    back.addEventListener('click', () => silence(state.without));
    const told = isolated(found.without[0].toUpperCase() + found.without.slice(1));
    if (found.best === '') best.replaceChildren('These are the numbers ', isolated(found.without), '; ', back);
    else {
      best.replaceChildren(
        told, ' the answer is \u201c', element('strong', {}, isolated(found.best)), '\u201d; ', back,
      );
    }
  }
}

function setBar(row, value, share) {
  row.querySelector('.value').textContent = value;
  const bar = row.querySelector('.bar');
  if (bar.style.getPropertyValue('--share') !== '' && share >= 0 && share <= 1) {
    bar.style.setProperty('--share', share);
  }
}

function winner(name, value, share) {
  const bar = element('span', { className: 'bar', style: '--share:0' });
  const made = element('li', { className: 'winner' },
    element('span', { className: 'name' }, isolated(name)),
    element('span', { className: 'track' }, bar), element('span', { className: 'value' }));
  setBar(made, value, share);
  return made;
}

// A piece of a text, marked where it has a name.
function piece([text, name]) {
  if (!name) return text;
  return element('mark', { className: 'entity' }, isolated(text), element('small', { textContent: name }));
}
