// What moves in a picture to explore: zoom, ruler, click, brightness, overlays, two masks side by side.
// Listeners sit on the document, not on each picture: a page of hundreds of cases opens as fast as one of a few.
document.documentElement.classList.add('js');
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// Zoom: the viewBox moves; its proportions stay those of the crop it starts with.
function boxes(svg) {
  const box = svg.getAttribute('viewBox').split(' ').map(Number);
  if (!svg.dataset.home) svg.dataset.home = box.join(' ');
  const home = svg.dataset.home.split(' ').map(Number);
  const [height, width] = svg.dataset.size.split(' ').map(Number);
  const ratio = home[2] / home[3], wide = Math.max(width, height * ratio);
  const whole = [(width - wide) / 2, (height - wide / ratio) / 2, wide, wide / ratio];
  return {box, home, whole, height, width, ratio};
}
function place(svg, x, y, wide) {
  const {whole, height, width, ratio} = boxes(svg);
  wide = clamp(wide, Math.min(6, whole[2]), whole[2]);
  const tall = wide / ratio;
  x = clamp(x, Math.min(-wide / 4, (width - wide) / 2), Math.max(width - wide * 3 / 4, (width - wide) / 2));
  y = clamp(y, Math.min(-tall / 4, (height - tall) / 2), Math.max(height - tall * 3 / 4, (height - tall) / 2));
  svg.setAttribute('viewBox', [x, y, wide, tall].map(v => +v.toFixed(3)).join(' '));
  svg.parentElement.classList.toggle('zoomed', svg.getAttribute('viewBox') !== svg.dataset.home);
  scale(svg);
}
// u and v: the point that stays where it is, as shares of the picture.
function zoom(svg, factor, u = 0.5, v = 0.5) {
  const {box, whole, ratio} = boxes(svg);
  const wide = clamp(box[2] / factor, Math.min(6, whole[2]), whole[2]);
  place(svg, box[0] + u * (box[2] - wide), box[1] + v * (box[3] - wide / ratio), wide);
}
function show(svg, name) {
  const box = boxes(svg)[name];
  svg.setAttribute('viewBox', box.join(' '));
  svg.parentElement.classList.toggle('zoomed', name !== 'home');
  scale(svg);
}
function move(svg, u, v) {
  const {box} = boxes(svg);
  place(svg, box[0] + u * box[2], box[1] + v * box[3], box[2]);
}
function at(svg, {clientX, clientY}) {
  const place = svg.getBoundingClientRect();
  return [(clientX - place.left) / place.width, (clientY - place.top) / place.height];
}

// Lengths: millimetres where the spacing is known, else pixels.
function units(svg) {
  const [row, column] = svg.dataset.spacing ? svg.dataset.spacing.split(' ').map(Number) : [1, 1];
  return {row, column, unit: svg.dataset.spacing ? 'mm' : 'px'};
}
// The bar in the corner: a round length, a third of the picture at most.
function scale(svg) {
  const {column, unit} = units(svg), wide = boxes(svg).box[2] * column;
  const power = 10 ** Math.floor(Math.log10(wide / 3));
  const length = [5, 2, 1].map(step => step * power).find(step => step <= wide / 3);
  const bar = svg.parentElement.querySelector('.bar-scale');
  bar.style.width = `${100 * length / wide}%`;
  bar.textContent = `${+length.toPrecision(1)} ${unit}`;
}
function inImage(svg, [u, v]) {
  const {box} = boxes(svg);
  return [box[0] + u * box[2], box[1] + v * box[3]];
}
function say(svg, text) {
  svg.closest('.main').querySelector('.point').textContent = text;
}
// The ruler: a line from where the pointer went down to where it is.
function measure(svg, from, to) {
  let line = svg.querySelector('.ruler');
  if (!line) {
    line = svg.appendChild(document.createElementNS(svg.namespaceURI, 'line'));
    line.setAttribute('class', 'ruler');
  }
  for (const [name, value] of Object.entries({x1: from[0], y1: from[1], x2: to[0], y2: to[1]}))
    line.setAttribute(name, value);
  const {row, column, unit} = units(svg);
  const length = Math.hypot((to[0] - from[0]) * column, (to[1] - from[1]) * row);
  say(svg, `${length.toFixed(1)} ${unit}`);
}
// A click: the pixel's place, ready to be pasted into a command.
function pick(svg, place) {
  const {height, width} = boxes(svg), [x, y] = inImage(svg, place).map(Math.floor);
  if (x < 0 || y < 0 || x >= width || y >= height) return;
  const text = svg.dataset.at.replace('-X', width - 1 - x).replace('X', x).replace('-Y', height - 1 - y).replace('Y', y);
  say(svg, text);
  navigator.clipboard?.writeText(text).then(() => say(svg, `${text} (copied)`), () => {});
}

document.addEventListener('wheel', event => {
  const svg = event.target.closest?.('.stage')?.firstElementChild;
  if (!svg || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  zoom(svg, Math.exp(-event.deltaY / 200), ...at(svg, event));
}, {passive: false});
const fingers = new Map();
let held = null, pressed = null;
document.addEventListener('pointerdown', event => {
  const svg = event.target.closest?.('.stage')?.firstElementChild;
  if (!svg || event.button) return;
  if (held !== svg) fingers.clear();
  held = svg;
  fingers.set(event.pointerId, at(svg, event));
  pressed = {x: event.clientX, y: event.clientY, point: inImage(svg, at(svg, event)), moved: fingers.size > 1};
  svg.setPointerCapture(event.pointerId);
});
document.addEventListener('pointermove', event => {
  if (!fingers.has(event.pointerId)) return;
  const before = [...fingers.values()], now = at(held, event), last = fingers.get(event.pointerId);
  fingers.set(event.pointerId, now);
  pressed.moved ||= Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) > 3;
  if (ruler(held)) return measure(held, pressed.point, inImage(held, now));
  if (before.length === 1) return move(held, last[0] - now[0], last[1] - now[1]);
  const after = [...fingers.values()];
  const apart = ([a, b]) => Math.hypot(a[0] - b[0], a[1] - b[1]);
  if (apart(before) > 0) zoom(held, apart(after) / apart(before), (after[0][0] + after[1][0]) / 2,
    (after[0][1] + after[1][1]) / 2);
});
for (const end of ['pointerup', 'pointercancel'])
  document.addEventListener(end, event => {
    if (!fingers.delete(event.pointerId)) return;
    if (end === 'pointerup' && !pressed.moved && !ruler(held)) pick(held, at(held, event));
  });
function ruler(svg) {
  return svg.closest('.main').querySelector('[data-ruler]').ariaPressed === 'true';
}
document.addEventListener('click', ({target}) => {
  const button = target.closest('[data-ruler]');
  if (!button) return;
  const stage = button.closest('.main').querySelector('.stage'), on = button.ariaPressed !== 'true';
  button.ariaPressed = String(on);
  stage.classList.toggle('measuring', on);
  stage.querySelector('.ruler')?.remove();
  say(stage.firstElementChild, on ? 'Drag over the picture to measure' : '');
});

// Window and level: a linear transfer of the picture's values.
let filters = 0;
function tone(panel) {
  const [level, width] = [...panel.querySelectorAll('input')].map(input => Number(input.value));
  const svg = panel.closest('.main').querySelector('.outlines');
  const {low, high, unit} = panel.dataset, span = high - low;
  const text = value => unit ? `${Math.round(value)} ${unit}` : value.toFixed(2);
  const [levelText, widthText] = panel.querySelectorAll('b');
  levelText.textContent = text(Number(low) + level * span);
  widthText.textContent = text(width * span);
  let filter = svg.querySelector('filter');
  if (!filter) {
    filter = svg.appendChild(document.createElementNS(svg.namespaceURI, 'filter'));
    filter.id = `tone-${++filters}`;
    filter.setAttribute('color-interpolation-filters', 'sRGB');
    const transfer = filter.appendChild(document.createElementNS(svg.namespaceURI, 'feComponentTransfer'));
    for (const channel of 'RGB') {
      const line = transfer.appendChild(document.createElementNS(svg.namespaceURI, `feFunc${channel}`));
      line.setAttribute('type', 'linear');
    }
    svg.querySelector('.picture').setAttribute('filter', `url(#${filter.id})`);
  }
  for (const line of filter.firstElementChild.children) {
    line.setAttribute('slope', 1 / width);
    line.setAttribute('intercept', 0.5 - level / width);
  }
}

function setLevel(slider) {
  const figure = slider.closest('.main'), level = Number(slider.value);
  figure.querySelector('output').textContent = level;
  let area = '';
  for (const layer of figure.querySelectorAll('[data-from]')) {
    const on = layer.dataset.from <= level && level <= layer.dataset.to;
    layer.toggleAttribute('hidden', !on);
    if (on && !layer.closest('[data-slice][hidden]')) area = layer.dataset.area;
  }
  figure.querySelector('.area').textContent = area;
  slider.setAttribute('aria-valuetext', `marked by at least ${level} of ${slider.dataset.samples}: ${area}`);
}
function fade(slider) {
  slider.closest('.main').querySelector('.overlays').style.opacity = slider.value / 100;
  slider.parentElement.querySelector('b').textContent = `${slider.value}%`;
}
// One of the two pictures side by side shows another mask.
function beside(select) {
  const picture = select.nextElementSibling;
  picture.lastElementChild.setAttribute('href', `#${select.dataset.beside}-${select.value}`);
  const side = select.ariaLabel.split(' ')[0];
  picture.setAttribute('aria-label', `${side}: ${select.selectedOptions[0].textContent}`);
}
document.addEventListener('input', ({target}) => {
  const {shows, samples, tone: kind} = target.dataset;
  if (shows !== undefined)
    for (const layer of target.closest('.main').querySelectorAll(`[data-layer="${shows}"]`))
      layer.toggleAttribute('hidden', !target.checked);
  else if (samples) setLevel(target);
  else if (kind) tone(target.closest('.window'));
  else if (target.dataset.opacity !== undefined) fade(target);
  else if (target.dataset.beside) beside(target);
});
