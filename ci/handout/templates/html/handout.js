"use strict";
const said = document.getElementById("said");

async function write(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // refused, or a page that did not come by a secure way
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "unseen";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) throw new Error("the browser does not let us copy");
  }
}

async function copy(button, code) {
  try {
    await write(code.textContent.replace(/\n$/, ""));
    button.textContent = said.dataset.copied;
  } catch {
    button.textContent = said.dataset.failed;
  }
  button.focus();
  said.textContent = button.textContent;
  setTimeout(() => {
    button.textContent = said.dataset.copy;
    said.textContent = "";
  }, 2000);
}

for (const code of document.querySelectorAll("pre.source > code, .prose pre > code")) {
  const button = document.createElement("button");
  const count = code.parentElement.dataset.count;
  button.type = "button";
  button.textContent = said.dataset.copy;
  button.setAttribute("aria-label", said.dataset.code + (count ? " " + count : ""));
  button.addEventListener("click", () => copy(button, code));
  code.before(button);
}

// The other language, at the place where the reader is.
function here(event) {
  const link = event.currentTarget;
  const passed = [...document.querySelectorAll("main [id]")].filter(
    (place) => place.getBoundingClientRect().top < 80);
  const id = scrollY > 0 && passed.length ? passed.at(-1).id : "";
  link.hash = id.replace(/-(en|zh)(?=$|-\d+$)/, "-" + link.dataset.language);
}
for (const link of document.querySelectorAll("a[data-language]")) {
  link.addEventListener("click", here);
  link.addEventListener("auxclick", here);
}
