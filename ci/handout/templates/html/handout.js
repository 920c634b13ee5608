"use strict";
const copyStatus = document.getElementById("copy-status");

async function write(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // the browser refused, or the page was not loaded securely
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "unseen";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) throw new Error("the browser does not allow copying");
  }
}

async function copy(button, code) {
  try {
    await write(code.textContent.replace(/\n$/, ""));
    button.textContent = copyStatus.dataset.copied;
  } catch {
    button.textContent = copyStatus.dataset.failed;
  }
  button.focus();
  copyStatus.textContent = button.textContent;
  setTimeout(() => {
    button.textContent = copyStatus.dataset.copy;
    copyStatus.textContent = "";
  }, 2000);
}

for (const code of document.querySelectorAll("pre.source > code, .prose pre > code")) {
  const button = document.createElement("button");
  const count = code.parentElement.dataset.count;
  button.type = "button";
  button.textContent = copyStatus.dataset.copy;
  button.setAttribute("aria-label", copyStatus.dataset.code + (count ? " " + count : ""));
  button.addEventListener("click", () => copy(button, code));
  code.before(button);
}

// Open the table around a check that a link leads to, in browsers that do not.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const fold = target?.closest("details");
  if (fold && !fold.open) {
    fold.open = true;
    target.scrollIntoView();
  }
}
addEventListener("hashchange", reveal);
reveal();

// Lead to the other language at the place where the reader is.
function keepPlace(event) {
  const link = event.currentTarget;
  const passed = [...document.querySelectorAll("main section[id]")].filter(
    (place) => place.getBoundingClientRect().top < 80);
  const id = scrollY > 0 && passed.length ? passed.at(-1).id : "";
  link.hash = id.replace(/-(en|zh)(?=$|-\d+$)/, "-" + link.dataset.language);
}
for (const link of document.querySelectorAll("a[data-language]")) {
  link.addEventListener("click", keepPlace);
  link.addEventListener("auxclick", keepPlace);
}

// Mark the section that is being read in the contents, which may scroll by themselves.
const sections = [...document.querySelectorAll(".contents li li a")].map(
  (link) => [link, document.getElementById(decodeURIComponent(link.hash.slice(1)))]);
let marked;
function markSection() {
  const current = sections.findLast(([, place]) => place.getBoundingClientRect().top < 120)?.[0];
  if (current === marked) return;
  marked?.removeAttribute("aria-current");
  current?.setAttribute("aria-current", "location");
  marked = current;
  const list = document.querySelector("header");
  if (current && list.scrollHeight > list.clientHeight) {
    list.scrollTop = current.offsetTop - list.clientHeight / 2;
  }
}
for (const [link] of sections) {
  link.addEventListener("click", () => { link.closest("details").open = false; }); // it covers a phone
}
addEventListener("scroll", markSection, {passive: true});
markSection();
