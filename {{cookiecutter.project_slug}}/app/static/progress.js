// Follows what a page with a progress bar waits for, and loads the page anew once, when it has ended.
const pause = 1000;
const bar = document.querySelector("progress");
const status = document.getElementById("status");
const count = document.getElementById("count");

function show(progress) {
  // Screen readers read out what is set, even if it is the same.
  if (status.textContent !== progress.status) status.textContent = progress.status;
  if (!progress.total) return;
  bar.max = progress.total;
  bar.value = progress.done;
  count.textContent = `${progress.done} of ${progress.total} posts`;
}

async function follow() {
  try {
    const response = await fetch(location.href, { headers: { Accept: "application/json" } });
    const progress = response.ok ? await response.json() : null;
    // Whoever is logged out meanwhile is asked to log in; a server that is only busy is asked again.
    if (progress?.finished || (response.status >= 400 && response.status < 500 && response.status !== 429)) {
      location.reload();
      return;
    }
    if (progress) show(progress);
  } catch {
    // Without a network there is nothing to show, until there is one again.
  }
  setTimeout(follow, pause);
}

setTimeout(follow, pause);
