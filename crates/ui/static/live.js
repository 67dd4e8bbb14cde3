// Puts the numbers of the event stream into the elements that name them. The page has them already, as they were when it was made.
const place = document.querySelector("[data-events]");
if (place) {
  const state = document.getElementById("live-state");
  let stream = null;
  const say = (text) => { if (state) state.textContent = text; };
  const open = () => {
    stream = new EventSource(place.dataset.events);
    stream.addEventListener("open", () => say("Live."));
    stream.addEventListener("message", (event) => {
      for (const [name, text] of Object.entries(JSON.parse(event.data))) {
        for (const element of document.querySelectorAll(`[data-live="${CSS.escape(name)}"]`)) {
          if (element.textContent !== text) element.textContent = text;
        }
      }
    });
    stream.addEventListener("error", () => say(stream.readyState === EventSource.CLOSED ? "Not live: reload the page." : "Connecting."));
  };
  // A page that nobody looks at holds no connection.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { stream?.close(); stream = null; say("Paused."); } else if (!stream) { open(); }
  });
  if (!document.hidden) open();
}
