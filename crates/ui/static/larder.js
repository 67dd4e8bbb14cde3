// Copy buttons. They are hidden in the page, and shown here: without scripts there are none.
const said = document.createElement("p");
said.className = "hidden";
said.setAttribute("role", "status");
document.querySelector("main")?.append(said);

// Browsers have a clipboard for pages that came by HTTPS, or from this machine. On others the text is selected, and copied as a user would.
async function copy(source) {
  const text = source.textContent;
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const selection = getSelection();
  selection.selectAllChildren(source);
  const exactly = (event) => {
    event.clipboardData.setData("text/plain", text);
    event.preventDefault();
  };
  document.addEventListener("copy", exactly);
  const isDone = document.execCommand("copy");
  document.removeEventListener("copy", exactly);
  selection.removeAllRanges();
  if (!isDone) throw new Error("not copied");
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  const source = document.getElementById(button.dataset.copy);
  if (!source) continue;
  button.hidden = false;
  const word = button.textContent;
  button.addEventListener("click", async () => {
    try {
      await copy(source);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not copied";
    }
    said.textContent = button.textContent;
    setTimeout(() => {
      button.textContent = word;
      said.textContent = "";
    }, 2000);
  });
}

// Lines for clients lead to larder only if it knows the address that browsers have.
for (const note of document.querySelectorAll("[data-address]")) {
  note.hidden = new URL(note.dataset.here, location.href).href === new URL(note.dataset.address).href;
}
