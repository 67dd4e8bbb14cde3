// Puts the numbers of the event stream into the elements that name them. The page has them already, as they were when it was made.
const place = document.querySelector("[data-events]");
if (place) {
  const state = document.getElementById("live-state");
  const say = (text) => { if (state && state.textContent !== text) state.textContent = text; };
  const show = (texts) => {
    for (const [name, text] of Object.entries(texts)) {
      for (const element of document.querySelectorAll(`[data-live="${CSS.escape(name)}"]`)) {
        if (element.textContent !== text) element.textContent = text;
      }
    }
  };
  let stream = null;

  // A browser has six connections to a host, and a stream holds one: of all tabs the one with the smallest number has it, and tells the others.
  const number = Math.random();
  const { href } = new URL(place.dataset.events, location.href);
  const others = "BroadcastChannel" in window ? new BroadcastChannel(href) : null;
  const LONGEST = 5000;
  const LATER = 30000;
  let next = 0;

  const close = () => {
    stream?.close();
    stream = null;
  };
  const open = () => {
    stream = new EventSource(href);
    stream.addEventListener("open", () => say("Live."));
    stream.addEventListener("message", (event) => {
      const texts = JSON.parse(event.data);
      show(texts);
      others?.postMessage({ number, texts });
    });
    stream.addEventListener("error", () => {
      if (stream?.readyState !== EventSource.CLOSED) {
        say("Connecting.");
        return;
      }
      // There was no place for it.
      close();
      next = performance.now() + LATER;
      say("Not live for the moment.");
    });
  };
  others?.addEventListener("message", ({ data }) => {
    if (document.hidden || (stream?.readyState === EventSource.OPEN && data.number > number)) return;
    close();
    next = performance.now() + LONGEST;
    show(data.texts);
    say("Live.");
  });

  // A page that nobody looks at holds no connection.
  const look = () => {
    if (document.hidden) {
      close();
      next = 0;
      say("Paused.");
    } else if (!stream && performance.now() >= next) {
      open();
    }
  };
  document.addEventListener("visibilitychange", look);
  setInterval(look, 1000);
  look();
}
