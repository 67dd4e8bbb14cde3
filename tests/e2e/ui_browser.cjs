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

async function accessible(page, mode) {
  await page.evaluate(axe);
  const result = await page.evaluate(() => window.axe.run(document, {
    runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], resultTypes: ["violations"],
  }));
  const grave = result.violations.filter((violation) => ["serious", "critical"].includes(violation.impact));
  for (const { id, nodes } of grave) {
    problem(`${mode} ${shown(page.url())}`, `axe ${id}: ${nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(" | ")}`);
  }
}

const timing = (response) => Number(/dur=([\d.]+)/.exec(response.headers()["server-timing"] ?? "")?.[1] ?? -1);

// One page with scripts. Gives its links.
async function visit(page, url, mode, narrow) {
  const response = await page.goto(url, WAIT);
  const where = `${mode} ${shown(url)}`;
  if (response.status() !== 200) problem(where, `status ${response.status()}`);
  const entry = (found.pages[shown(url)] ??= {});
  entry.bytes = Math.max(entry.bytes ?? 0, (await response.body()).length);
  entry.ms = timing(response);
  for (const what of await page.evaluate(INJECTED)) problem(where, what);
  for (const what of await page.evaluate(() => window.larderPolicy ?? [])) problem(where, `policy: ${what}`);
  if (narrow) {
    const [wide, seen] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
    if (wide > seen) problem(where, `scrolls sideways: ${wide} px in ${seen}`);
  }
  const headings = await page.locator("h1").count();
  if (headings !== 1) problem(where, `${headings} main headings`);
  await accessible(page, mode);
  return page.evaluate(() => [...document.querySelectorAll("a[href]:not([download])")].map((link) => link.href));
}

async function crawl(browser, state) {
  const seen = await context(browser, { width: 1280, state });
  await seen.addInitScript(() => {
    window.larderPolicy = [];
    document.addEventListener("securitypolicyviolation", (event) => window.larderPolicy.push(`${event.violatedDirective} ${event.blockedURI}`));
  });
  const page = await watched(seen, "light");
  const queue = task.seeds.map((seed) => task.base + seed);
  const known = new Set(queue);
  const others = new Set();
  while (queue.length > 0) {
    const url = queue.shift();
    for (const link of await visit(page, url, "light", false)) {
      const plain = link.split("#")[0];
      const below = plain.startsWith(`${task.base}/ui/`) && !/^\/ui\/(static|events|logout)/.test(shown(plain));
      if (!below) others.add(plain);
      else if (!known.has(plain) && known.size < task.most) {
        known.add(plain);
        queue.push(plain);
      }
    }
  }
  found.other_links = [...others];
  for (const link of others) {
    if (!own(link)) continue;
    const answer = await seen.request.get(link);
    if (answer.status() >= 400) problem(shown(link), `a link that answers ${answer.status()}`);
  }
  await seen.close();
  return [...known];
}

async function again(browser, state, urls) {
  const narrow = await context(browser, { width: 360, dark: true, state });
  const page = await watched(narrow, "dark 360");
  for (const url of urls) await visit(page, url, "dark 360", true);
  await narrow.close();
  const plain = await context(browser, { width: 1280, scripts: false, state });
  const still = await watched(plain, "without scripts");
  for (const url of urls) {
    const response = await still.goto(url, WAIT);
    if (response.status() !== 200) problem(`without scripts ${shown(url)}`, `status ${response.status()}`);
    const text = await still.locator("main").innerText();
    if (text.trim().length < 10) problem(`without scripts ${shown(url)}`, "there is nothing to read");
    const json = await plain.request.get(url, { headers: { accept: "application/json" } });
    const headers = json.headers();
    if (json.status() !== 200 || !headers["content-type"]?.startsWith("application/json")) problem(`JSON ${shown(url)}`, `${json.status()} ${headers["content-type"]}`);
    if (!/\baccept\b/i.test(headers.vary ?? "")) problem(`JSON ${shown(url)}`, `Vary: ${headers.vary}`);
    try {
      JSON.parse(await json.text());
    } catch (error) {
      problem(`JSON ${shown(url)}`, error.message);
    }
  }
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

async function screenshots(browser, state) {
  fs.mkdirSync(task.screenshots, { recursive: true });
  for (const [mode, options] of Object.entries({ light: { width: 1280, state }, dark: { width: 360, dark: true, state } })) {
    const seen = await context(browser, options);
    const page = await seen.newPage();
    for (const [name, address] of Object.entries(task.pictures)) {
      await page.goto(task.base + address, WAIT);
      const height = await page.evaluate(() => document.documentElement.scrollHeight);
      await page.screenshot({
        path: path.join(task.screenshots, `${name}-${mode}.png`), fullPage: true,
        clip: { x: 0, y: 0, width: options.width, height: Math.min(height, mode === "light" ? 900 : 1400) },
      });
    }
    await seen.close();
  }
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
  if (task.seeds) await again(browser, state, await crawl(browser, state));
  if (task.pictures) await screenshots(browser, state);
  await browser.close();
  console.log(JSON.stringify(found));
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
