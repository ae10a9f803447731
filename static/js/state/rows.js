/**
 * The visible part of a long list, without any DOM. Browsers limit the height of an element, so a very long list gets a
 * smaller height and scrolls in proportion.
 */

const MAX_LIST_HEIGHT_PX = 12_000_000;
const EXTRA_ROWS = 4; // drawn above and below the view, so that scrolling shows no gap

/**
 * Return which rows a list shows, and where.
 * @param {{count: number, row: number, view: number, scroll: number}} list row, view, scroll: pixels
 * @returns {{height: number, first: number, last: number, top: number}}
 *     height: of the whole list; first, last (exclusive): the rows to draw; top: where to draw the first; pixels
 */
export function visibleRows({ count, row, view, scroll }) {
  const full = count * row;
  const height = Math.min(full, MAX_LIST_HEIGHT_PX);
  const maxScroll = Math.max(0, height - view);
  const offset = Math.min(Math.max(0, scroll), maxScroll);
  const exact = maxScroll > 0 ? (offset / maxScroll) * (full - view) : 0; // scrolled, in a list of full height
  const first = Math.max(0, Math.floor(exact / row) - EXTRA_ROWS);
  const last = Math.min(count, Math.ceil((exact + view) / row) + EXTRA_ROWS);
  return { height, first, last, top: offset - exact + first * row };
}

/** Return the scroll position that makes a row fully visible; the present one if it is. */
export function scrollTo(index, { count, row, view, scroll }) {
  const full = count * row;
  const height = Math.min(full, MAX_LIST_HEIGHT_PX);
  if (full <= view) return 0;
  const [maxScroll, range] = [height - view, full - view];
  const exact = (scroll / maxScroll) * range;
  let wanted = exact;
  if (index * row < exact) wanted = index * row;
  if ((index + 1) * row > exact + view) wanted = (index + 1) * row - view;
  return wanted === exact ? scroll : (wanted / range) * maxScroll;
}
