// Follows the transfer that the page shows, and loads the page again once it has ended.
const pause = 1000;
const state = document.getElementById("state");
const bar = document.querySelector("progress");
const count = document.getElementById("count");

function show(transfer) {
  const words = `${transfer.state[0].toUpperCase()}${transfer.state.slice(1)} …`;
  // Screen readers read out whatever is set, even if it is the same.
  if (state.textContent !== words) state.textContent = words;
  bar.max = transfer.total || 1;
  bar.value = transfer.done;
  count.textContent = `${transfer.done} of ${transfer.total}`;
}

async function follow() {
  try {
    const response = await fetch(location.href, { headers: { Accept: "application/json" } });
    const transfer = response.ok ? await response.json() : null;
    // The page itself says what to do for a user who was logged out; a busy server is asked again.
    const refused = response.status >= 400 && response.status < 500 && response.status !== 429;
    if (transfer?.finished || refused) {
      location.reload();
      return;
    }
    if (transfer) show(transfer);
  } catch {
    // Without a network there is nothing to show.
  }
  setTimeout(follow, pause);
}

setTimeout(follow, pause);
