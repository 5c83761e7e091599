// The page comes to life -------------------------------------------------------------------------

// What is linked to may be folded, together with all that it lies in.
function unfold() {
  const name = decodeURIComponent(location.hash.slice(1));
  const found = name && document.getElementById(name);
  if (!found) return;
  for (let each = found; each; each = each.parentElement) {
    if (each.tagName === 'DETAILS') each.open = true;
  }
  found.scrollIntoView();
}

addEventListener('hashchange', unfold);
// The same link once more changes no hash, and yet is to open what has been folded again.
document.addEventListener('click', (event) => {
  if (event.target.closest('a[href^="#"]')?.getAttribute('href') === location.hash) unfold();
});
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
if (data.chosen) {
  choose(state.block, state.number, true);
  follow();
}
unfold();
document.documentElement.classList.add('ready');
