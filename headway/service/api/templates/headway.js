// Shows the newest content every few seconds, unless somebody fills in a form or does not look.
"use strict";

const PAUSE = 3000; // milliseconds

async function refresh() {
  const main = document.getElementById("main");
  const busy = main.contains(document.activeElement) && document.activeElement.matches("input, button, summary");
  if (!document.hidden && !busy && !main.querySelector("details[open]")) {
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" } });
      if (answer.redirected) {
        location.reload();
      } else if (answer.ok) {
        const next = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main");
        if (next && next.innerHTML !== main.innerHTML) {
          main.replaceWith(document.importNode(next, true));
        }
      }
    } catch {
      // The service restarts: the next attempt finds it again.
    }
  }
  setTimeout(refresh, PAUSE);
}

setTimeout(refresh, PAUSE);
