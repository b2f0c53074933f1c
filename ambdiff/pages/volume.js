// The slices of a volume: slider, buttons, wheel, Page Up and Page Down, and a click into the plot of areas turn them.
function turn(volume, index) {
  const slider = volume.querySelector('[data-turns]'), slices = JSON.parse(volume.dataset.slices);
  index = clamp(index, 0, slices.length - 1);
  const name = volume.dataset.volume, {title, at} = slices[index];
  slider.value = index;
  slider.setAttribute('aria-valuetext', title);
  volume.querySelector('.turn output').textContent = title;
  for (const use of volume.querySelectorAll('.store > defs > g > use')) {
    const part = use.parentElement.id.slice(name.length + 1);
    use.setAttribute('href', `#${name}-${index}-${part}`);
  }
  for (const layer of volume.querySelectorAll('[data-slice]'))
    layer.toggleAttribute('hidden', layer.dataset.slice !== String(index));
  volume.querySelector('.outlines').dataset.at = at;
  const level = volume.querySelector('[data-samples]');
  if (level) setLevel(level);
  const plot = volume.querySelector('.by-slice');
  const [left, wide] = plot.dataset.across.split(' ').map(Number);
  const x = left + wide * (index + 0.5) / slices.length;
  for (const end of ['x1', 'x2']) plot.querySelector('.cursor').setAttribute(end, x);
}
const volumeOf = element => element?.closest?.('.volume');
const slice = volume => Number(volume.querySelector('[data-turns]').value);
document.addEventListener('input', ({target}) => {
  if (target.matches('[data-turns]')) turn(volumeOf(target), Number(target.value));
});
document.addEventListener('click', ({target, clientX}) => {
  const button = target.closest('[data-turn]'), plot = target.closest('.by-slice svg');
  if (button) turn(volumeOf(button), slice(volumeOf(button)) + Number(button.dataset.turn));
  else if (plot && volumeOf(plot)) {
    const place = plot.getBoundingClientRect(), [left, wide] = plot.parentElement.dataset.across.split(' ').map(Number);
    const x = (clientX - place.left) / place.width * plot.viewBox.baseVal.width;
    const count = JSON.parse(volumeOf(plot).dataset.slices).length;
    turn(volumeOf(plot), Math.floor((x - left) / wide * count));
  }
});
let turned = 0;
document.addEventListener('wheel', event => {
  const volume = volumeOf(event.target.closest?.('.stage'));
  if (!volume || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  turned += event.deltaY;
  const steps = Math.trunc(turned / 40);
  if (!steps) return;
  turned -= steps * 40;
  turn(volume, slice(volume) + Math.sign(steps));
}, {passive: false});
document.addEventListener('keydown', event => {
  const volume = volumeOf(event.target), step = {PageUp: -1, PageDown: 1}[event.key];
  if (!volume || !step || !event.target.matches('.stage, [data-turns]')) return;
  event.preventDefault();
  turn(volume, slice(volume) + step);
});
