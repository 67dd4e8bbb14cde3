// Looks at every page of the web interface in a real browser: signs in and flushes by keyboard alone, then follows every link with
// scripts and without, in light and dark, wide and narrow. Reads what to do from the file that is its argument, and prints what it found
// as one JSON object. What is right and wrong is judged by ui.py.
const fs = require("node:fs");
const path = require("node:path");

const task = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const { chromium } = require(path.join(task.tools, "playwright-core"));
const axe = fs.readFileSync(path.join(task.tools, "axe-core", "axe.min.js"), "utf8");

const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
// Tabs that look at pages at the same time.
const TABS = 4;
// The address that pages are shown under leads to where larder listens.
const { host } = new URL(task.base);
if (task.base !== task.at) {
  FLAGS.push(`--host-resolver-rules=MAP ${host} ${new URL(task.at).host}`, `--unsafely-treat-insecure-origin-as-secure=${task.base}`);
}
const WAIT = { waitUntil: "load", timeout: 60_000 };
const found = { pages: {}, problems: [], other_links: [], steps: [] };
const problem = (where, what) => found.problems.push(`${where}: ${what}`);
const own = (url) => url.startsWith(task.base + "/");
const shown = (url) => url.slice(task.base.length);

// A page with everything listened to that must not happen.
async function watched(context, mode) {
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) problem(`${mode} ${shown(page.url())}`, `console: ${message.text()}`);
  });
  page.on("pageerror", (error) => problem(`${mode} ${shown(page.url())}`, `script: ${error.message}`));
  page.on("dialog", async (dialog) => {
    problem(`${mode} ${shown(page.url())}`, `a dialog opened: ${dialog.message()}`);
    await dialog.dismiss();
  });
  page.on("request", (request) => {
    if (!own(request.url())) problem(`${mode} ${shown(page.url())}`, `a request to ${request.url()}`);
  });
  return page;
}

function context(browser, { dark, width, scripts = true, state }) {
  return browser.newContext({
    colorScheme: dark ? "dark" : "light", viewport: { width, height: 800 }, javaScriptEnabled: scripts, storageState: state,
    reducedMotion: "reduce", locale: "en-US",
  });
}

async function tabTo(page, selector) {
  for (let count = 0; count < 120; count += 1) {
    await page.keyboard.press("Tab");
    const there = await page.evaluate((wanted) => document.activeElement?.matches(wanted) ?? false, selector);
    if (there) return;
  }
  throw new Error(`the keyboard does not reach ${selector} on ${page.url()}`);
}

// Nothing that somebody else has written is markup.
const INJECTED = () => {
  const bad = [];
  if (window.larderWasHere) bad.push("a script of the corpus ran");
  for (const element of document.querySelectorAll("*")) {
    for (const { name, value } of element.attributes) {
      if (name.startsWith("on")) bad.push(`${element.tagName} has ${name}`);
      if (["href", "src", "action", "formaction"].includes(name) && /^\s*(javascript|data|vbscript):/i.test(value)) bad.push(`${name}=${value}`);
      if (name === "data-injected" || name === "style") bad.push(`${element.tagName} has ${name}`);
    }
    if (["IFRAME", "OBJECT", "EMBED", "BASE", "STYLE"].includes(element.tagName)) bad.push(element.tagName);
    if (element.tagName === "SCRIPT" && !element.src) bad.push("a script in the page");
  }
  if (document.body.textContent.includes("a49b")) bad.push("a template was evaluated");
  return [...new Set(bad)];
};

// What depends on colours, or on the width of the window. All other rules look at the document alone, which is the same in both modes.
const SEEN = ["color-contrast", "link-in-text-block", "scrollable-region-focusable", "css-orientation-lock", "avoid-inline-spacing"];
const STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"];

async function accessible(page, mode, runOnly) {
  const grave = await page.evaluate(async (only) => {
    const result = await window.axe.run(document, { runOnly: only, resultTypes: ["violations"] });
    const found = result.violations.filter((violation) => ["serious", "critical"].includes(violation.impact));
    return found.map(({ id, nodes }) => [id, nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(" | ")]);
  }, runOnly);
  for (const [id, nodes] of grave) problem(`${mode} ${shown(page.url())}`, `axe ${id}: ${nodes}`);
}

// Long texts leave the room of those beside them, and paper, on which nobody scrolls, has all of a page.
async function legible(page, where) {
  await page.setViewportSize({ width: 1280, height: 800 });
  const squeezed = await page.evaluate(() => [...document.querySelectorAll("dl.facts dd")].filter((value) => value.clientWidth < 100).length);
  if (squeezed > 0) problem(where, `${squeezed} values have no room beside their names`);
  await page.emulateMedia({ media: "print", colorScheme: "light" });
  await page.setViewportSize({ width: 720, height: 1_000 });
  const cut = await page.evaluate(() => [...document.querySelectorAll(".scroll, pre")].filter((part) => part.scrollWidth > part.clientWidth + 1)
    .map((part) => part.getAttribute("aria-label")));
  if (cut.length > 0) problem(`on paper ${where}`, `cut: ${cut.join(", ")}`);
  await page.emulateMedia({ media: "screen" });
}

const timing = (response) => Number(/dur=([\d.]+)/.exec(response.headers()["server-timing"] ?? "")?.[1] ?? -1);

// One page with scripts, light and wide, then dark and narrow. Gives its links.
async function visit(page, url) {
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1280, height: 800 });
  const response = await page.goto(url, WAIT);
  const where = shown(url);
  if (response.status() !== 200) problem(where, `status ${response.status()}`);
  const entry = (found.pages[where] ??= {});
  entry.bytes = Math.max(entry.bytes ?? 0, (await response.body()).length);
  entry.ms = timing(response);
  for (const what of await page.evaluate(INJECTED)) problem(where, what);
  const headings = await page.locator("h1").count();
  if (headings !== 1) problem(where, `${headings} main headings`);
  await accessible(page, "light", { type: "tag", values: STANDARDS });
  await page.emulateMedia({ colorScheme: "dark" });
  await page.setViewportSize({ width: 360, height: 800 });
  const [wide, seen] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  if (wide > seen) problem(`dark 360 ${where}`, `scrolls sideways: ${wide} px in ${seen}`);
  await accessible(page, "dark 360", { type: "rule", values: SEEN });
  await legible(page, where);
  for (const what of await page.evaluate(() => window.larderPolicy ?? [])) problem(where, `policy: ${what}`);
  return page.evaluate(() => [...document.querySelectorAll("a[href]:not([download])")].map((link) => link.href));
}

// The same without scripts, and as JSON.
async function plainly(page, request, url) {
  const response = await page.goto(url, WAIT);
  if (response.status() !== 200) problem(`without scripts ${shown(url)}`, `status ${response.status()}`);
  const text = await page.locator("main").innerText();
  if (text.trim().length < 10) problem(`without scripts ${shown(url)}`, "there is nothing to read");
  const json = await request.get(url, { headers: { accept: "application/json" } });
  const headers = json.headers();
  if (json.status() !== 200 || !headers["content-type"]?.startsWith("application/json")) problem(`JSON ${shown(url)}`, `${json.status()} ${headers["content-type"]}`);
  if (!/\baccept\b/i.test(headers.vary ?? "")) problem(`JSON ${shown(url)}`, `Vary: ${headers.vary}`);
  try {
    JSON.parse(await json.text());
  } catch (error) {
    problem(`JSON ${shown(url)}`, error.message);
  }
}

// Every link of every page, in several tabs at once.
async function crawl(browser, state) {
  const seen = await context(browser, { width: 1280, state });
  const plain = await context(browser, { width: 1280, scripts: false, state });
  await seen.addInitScript(() => {
    window.larderPolicy = [];
    document.addEventListener("securitypolicyviolation", (event) => window.larderPolicy.push(`${event.violatedDirective} ${event.blockedURI}`));
  });
  await seen.addInitScript({ content: axe });
  const queue = task.seeds.map((seed) => task.base + seed);
  const known = new Set(queue);
  const others = new Set();
  let busy = 0;
  const tab = async () => {
    const [page, still] = [await watched(seen, "scripts"), await watched(plain, "without scripts")];
    while (queue.length > 0 || busy > 0) {
      const url = queue.shift();
      if (!url) {
        await new Promise((resume) => setTimeout(resume, 20));
        continue;
      }
      busy += 1;
      for (const link of await visit(page, url)) {
        const below = link.split("#")[0];
        const isPage = below.startsWith(`${task.base}/ui/`) && !/^\/ui\/(static|events|logout)/.test(shown(below));
        if (!isPage) others.add(below);
        else if (!known.has(below) && known.size < task.most) {
          known.add(below);
          queue.push(below);
        }
      }
      await plainly(still, plain.request, url);
      busy -= 1;
    }
  };
  await Promise.all(Array.from({ length: TABS }, tab));
  found.other_links = [...others];
  for (const link of others) {
    if (!own(link)) continue;
    const answer = await seen.request.get(link);
    if (answer.status() >= 400) problem(shown(link), `a link that answers ${answer.status()}`);
  }
  await seen.close();
  await plain.close();
}

async function byKeyboard(browser) {
  const seen = await context(browser, { width: 1280 });
  const page = await watched(seen, "keyboard");
  await page.goto(`${task.base}/ui/login`, WAIT);
  await tabTo(page, "main input[type=password]");
  await page.keyboard.type(task.token);
  await Promise.all([page.waitForURL((url) => !url.pathname.endsWith("/login")), page.keyboard.press("Enter")]);
  found.steps.push("signed in");
  await page.goto(`${task.base}/ui/repositories/files/flush`, WAIT);
  await tabTo(page, "#pattern");
  await page.keyboard.type("^keyboard/");
  await tabTo(page, "main button.primary");
  await page.keyboard.press("Enter");
  await page.waitForSelector("main button.danger");
  await tabTo(page, "main button.danger");
  await page.keyboard.press("Enter");
  await page.waitForSelector("main button.danger", { state: "detached" });
  found.steps.push("flushed");
  const state = await seen.storageState();
  await seen.close();
  return state;
}

// More pages than a browser has connections to a host are all kept up to date, and none waits for another.
async function severalTabs(browser, state) {
  const seen = await context(browser, { width: 1280, state });
  const tabs = [];
  for (let count = 0; count < 8; count += 1) {
    const page = await watched(seen, "several tabs");
    await page.goto(`${task.base}/ui/`, { waitUntil: "load", timeout: 15_000 });
    tabs.push(page);
  }
  const live = (page) => page.waitForFunction(() => document.getElementById("live-state").textContent === "Live.", undefined, { timeout: 15_000 });
  await Promise.all(tabs.map(live));
  // Whichever of them has the stream: the others go on.
  for (const page of tabs.splice(0, 6)) await page.close();
  const counted = () => Promise.all(tabs.map((page) => page.locator("[data-live=requests]").textContent()));
  const before = await counted();
  await tabs[0].request.get(`${task.base}/api/v1/remote/files/readme.txt`);
  await Promise.all(tabs.map((page, at) => page.waitForFunction((old) => document.querySelector("[data-live=requests]").textContent !== old, before[at],
    { timeout: 15_000 })));
  found.steps.push("several tabs");
  await seen.close();
}

// With the browser's clipboard, and where it has none for pages: by plain HTTP from another machine.
async function copying(browser, state) {
  for (const isSecure of [true, false]) {
    const seen = await context(browser, { width: 1280, state });
    if (isSecure) await seen.grantPermissions(["clipboard-read", "clipboard-write"]);
    else await seen.addInitScript(() => Object.defineProperty(navigator, "clipboard", { value: undefined }));
    const page = await watched(seen, "copying");
    await page.goto(`${task.base}/ui/repositories/pypi`, WAIT);
    const wanted = await page.locator("#set-up-1").textContent();
    await page.locator("button[data-copy=set-up-1]").click();
    await page.locator("main > [role=status]", { hasText: "Copied" }).waitFor();
    await page.goto(`${task.base}/ui/search`, WAIT);
    await page.locator("#q").focus();
    await page.keyboard.press("Control+V");
    const pasted = await page.inputValue("#q");
    if (pasted !== wanted) problem("copying", `${pasted} in place of ${wanted}`);
    await seen.close();
  }
  found.steps.push("copied");
}

async function screenshots(browser, state) {
  fs.mkdirSync(task.screenshots, { recursive: true });
  const modes = { light: { width: 1280, state }, dark: { width: 360, dark: true, state } };
  const all = { ...task.pictures };
  for (const [mode, options] of Object.entries(modes)) {
    const seen = await context(browser, options);
    const page = await seen.newPage();
    if (mode === "light") await compare(page);
    for (const [name, address] of Object.entries(all)) {
      await page.goto(task.base + address, WAIT);
      await page.waitForTimeout(300);
      await picture(page, `${name}-${mode}`, address.split("#")[1], options.width);
    }
    await seen.close();
    const out = await context(browser, { ...options, state: undefined });
    const login = await out.newPage();
    await login.goto(`${task.base}/ui/login`, WAIT);
    await picture(login, `login-${mode}`, undefined, options.width);
    await out.close();
  }
}

// The mirrors are asked how old their indexes are.
async function compare(page) {
  await page.goto(`${task.base}/ui/repositories/stable`, WAIT);
  await page.getByRole("button", { name: "Compare the mirrors" }).click();
  await page.waitForLoadState();
}

// What a window shows; from an element on, if its id is given. Folders and ports that are of this run alone are called as they usually are.
async function picture(page, name, id, width) {
  await page.evaluate((instead) => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      for (const [own, usual] of Object.entries(instead)) texts.currentNode.data = texts.currentNode.data.replaceAll(own, usual);
    }
  }, task.instead);
  const top = id ? await page.evaluate((id) => document.getElementById(id).getBoundingClientRect().top + window.scrollY - 60, id) : 0;
  const whole = await page.evaluate(() => document.documentElement.scrollHeight);
  const height = Math.min(whole - top, width > 400 ? 900 : 1_400);
  await page.screenshot({ path: path.join(task.screenshots, `${name}.png`), fullPage: true, clip: { x: 0, y: Math.max(top, 0), width, height } });
}

async function timed(browser, state) {
  const seen = await context(browser, { width: 1280, state });
  for (const address of task.timed) {
    await seen.request.get(task.base + address);
    const times = [];
    for (let count = 0; count < 3; count += 1) times.push(timing(await seen.request.get(task.base + address)));
    found.pages[address] = { ...found.pages[address], ms: Math.min(...times) };
  }
  await seen.close();
}

(async () => {
  const browser = await chromium.launch({ executablePath: task.chromium, headless: true, args: FLAGS });
  const state = await byKeyboard(browser);
  if (task.timed) await timed(browser, state);
  if (task.seeds) {
    await severalTabs(browser, state);
    await copying(browser, state);
    await crawl(browser, state);
  }
  if (task.pictures) await screenshots(browser, state);
  await browser.close();
  console.log(JSON.stringify(found));
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
