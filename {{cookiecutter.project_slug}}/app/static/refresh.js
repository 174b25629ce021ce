// Renews the part of a page that is called "live". Only what has changed is touched: focus, scroll position, selected
// text and open details stay.
const pause = 5000;
const patience = 30000;
const page = document.getElementById("live");
const leaving = new AbortController();

function renew(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
  } else if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
  } else {
    renewAttributes(old, fresh);
    renewChildren(old, fresh);
  }
}

function renewAttributes(old, fresh) {
  for (const { name } of [...old.attributes]) {
    if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}

// Elements with an id are the same wherever they have moved to; others are compared in their order.
function renewChildren(old, fresh) {
  const wanted = new Set([...fresh.children].map((child) => child.id));
  for (const child of [...old.children]) if (child.id && !wanted.has(child.id)) child.remove();
  const known = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
  let place = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const same = known.get(child.id);
    while (same && place && place !== same && !place.id) {
      const skipped = place;
      place = place.nextSibling;
      skipped.remove();
    }
    if (same) {
      if (place === same) place = place.nextSibling;
      else old.insertBefore(same, place);
      renew(same, child);
    } else if (place && !place.id && !child.id) {
      const next = place.nextSibling;
      renew(place, child);
      place = next;
    } else {
      old.insertBefore(child, place);
    }
  }
  while (place) {
    const rest = place;
    place = place.nextSibling;
    rest.remove();
  }
}

async function refresh() {
  if (!document.hidden) {
    try {
      const signal = AbortSignal.any([leaving.signal, AbortSignal.timeout(patience)]);
      const response = await fetch(location.href, { signal });
      // Whoever is logged out meanwhile is asked to log in; a server that is only busy is asked again.
      if (response.redirected || (response.status >= 400 && response.status < 500 && response.status !== 429)) {
        location.reload();
        return;
      }
      if (!response.ok) throw new Error(response.statusText);
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
      renew(page, fresh.getElementById(page.id));
    } catch {
      if (leaving.signal.aborted) return;
      document.getElementById("stale").hidden = false;
    }
  }
  setTimeout(refresh, pause);
}

// An answer that comes after that of the form would bring back the session of a moment before it.
addEventListener("submit", () => leaving.abort());
// A page that comes back by the browser's own button was left by that.
addEventListener("pageshow", (event) => event.persisted && location.reload());
setTimeout(refresh, pause);
