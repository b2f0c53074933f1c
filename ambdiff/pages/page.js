// What a page does beside its pictures: rows that open, the list of cases, the enlarged picture.

// A case of a long list comes to life when its row is opened.
document.addEventListener('toggle', ({target}) => {
  const inert = target.querySelector(':scope > template');
  if (target.open && inert) inert.replaceWith(inert.content);
}, true);

// The list of cases: narrowed by name, sorted by what a row carries.
const list = document.querySelector('#cases');
function narrow(text) {
  let count = 0;
  for (const row of list.children) {
    const on = row.dataset.name.toLowerCase().includes(text.toLowerCase());
    row.toggleAttribute('hidden', !on);
    count += on;
  }
  document.querySelector('#count').textContent = `${count} shown`;
}
function sort(key) {
  const number = row => Number(row.dataset[key]);
  const order = key === 'name' ? (a, b) => a.dataset.place - b.dataset.place : (a, b) => number(b) - number(a);
  list.append(...[...list.children].sort(order));
}

document.addEventListener('input', ({target}) => {
  if (target.matches('#filter')) narrow(target.value);
  else if (target.matches('#order')) sort(target.value);
});

const dialog = document.querySelector('dialog');
let shown = null;
function enlarge(button) {
  shown = button;
  const picture = button.firstElementChild;
  dialog.firstElementChild.replaceChildren(picture.cloneNode(true));
  dialog.querySelector('p').textContent = picture.alt || picture.getAttribute('aria-label');
  if (!dialog.open) dialog.showModal();
}
document.addEventListener('click', ({target}) => {
  const button = target.closest('.zoom'), tool = target.closest('[data-zoom]');
  if (button) enlarge(button);
  else if (tool) {
    const svg = tool.closest('.main').querySelector('.outlines'), how = tool.dataset.zoom;
    if (how === 'in' || how === 'out') zoom(svg, how === 'in' ? 1.5 : 1 / 1.5);
    else show(svg, how === 'crop' ? 'home' : 'whole');
  } else if (target === dialog) dialog.close();
});
document.addEventListener('keydown', event => {
  if (!event.target.matches?.('.stage') || event.ctrlKey || event.metaKey || event.altKey) return;
  const svg = event.target.firstElementChild, step = 0.1;
  const action = {
    '+': () => zoom(svg, 1.5), '=': () => zoom(svg, 1.5), '-': () => zoom(svg, 1 / 1.5),
    '0': () => show(svg, 'home'), '1': () => show(svg, 'whole'),
    ArrowLeft: () => move(svg, -step, 0), ArrowRight: () => move(svg, step, 0),
    ArrowUp: () => move(svg, 0, -step), ArrowDown: () => move(svg, 0, step),
  }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});
dialog.addEventListener('keydown', ({key}) => {
  const step = {ArrowLeft: -1, ArrowRight: 1}[key];
  if (!step) return;
  const all = [...shown.closest('.case').querySelectorAll('.zoom')];
  enlarge(all[(all.indexOf(shown) + step + all.length) % all.length]);
});
dialog.addEventListener('close', () => shown && shown.focus());
