"use strict";
(() => {
  const root = document.documentElement;
  const remembered = (key) => { try { return localStorage.getItem(key); } catch { return null; } };
  const remember = (key, value) => { try { localStorage.setItem(key, value); } catch { /* a file may have no storage */ } };
  const element = (id) => document.getElementById(id);

  // Language: both are in the page; attributes, options and texts of pictures cannot hold two, so they are set.
  const holders = new Set(["OPTION", "text", "title"]);
  const speak = (language) => {
    root.dataset.language = language;
    root.lang = language;
    for (const each of document.querySelectorAll("[data-en]")) {
      const said = each.dataset[language];
      if (holders.has(each.tagName)) each.textContent = said; else each.setAttribute("aria-label", said);
    }
    remember("corpus-language", language);
  };
  element("language").addEventListener("click", () => speak(root.dataset.language === "en" ? "zh" : "en"));
  speak(remembered("corpus-language") ?? ((navigator.language || "en").startsWith("zh") ? "zh" : "en"));

  // Colours: the system's, until the reader chooses.
  const isDark = () => root.dataset.scheme ? root.dataset.scheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const paint = (scheme) => {
    if (scheme) root.dataset.scheme = scheme;
    element("scheme").setAttribute("aria-pressed", String(isDark()));
  };
  element("scheme").addEventListener("click", () => { paint(isDark() ? "light" : "dark"); remember("corpus-scheme", root.dataset.scheme); });
  paint(remembered("corpus-scheme"));

  // Documents: hidden unless they have all that is asked for.
  const documents = [...document.querySelectorAll(".document")].map((node) => ({ node, text: node.textContent.toLowerCase() }));
  const sift = () => {
    const words = element("search").value.toLowerCase().split(/\s+/u).filter(Boolean);
    const [dataset, state, reason] = ["by-dataset", "by-state", "by-reason"].map((id) => element(id).value);
    let found = 0;
    for (const { node, text } of documents) {
      const fits = (!dataset || node.dataset.dataset === dataset) && (!state || node.dataset.state === state)
        && (!reason || node.dataset.reasons.split(" ").includes(reason)) && words.every((word) => text.includes(word));
      node.hidden = !fits;
      found += fits;
    }
    element("found").textContent = String(found);
    element("nothing").hidden = found > 0;
  };
  element("filter").addEventListener("input", sift);
  element("filter").addEventListener("submit", (event) => event.preventDefault());

  // Rows: what a piece is, for a pointer, a finger or a keyboard.
  for (const strip of document.querySelectorAll(".strip")) {
    const say = strip.querySelector(".say");
    const show = (event) => { if (event.target.dataset.say) say.textContent = event.target.dataset.say; };
    for (const name of ["pointerover", "focusin", "click"]) strip.addEventListener(name, show);
  }

  // The tokenizer: byte-level BPE as `tokenizers` does it (Sennrich et al., 2016; Radford et al., 2019).
  const source = element("vocabulary");
  if (!source) return;
  element("needs-script").hidden = true;
  const { tokens, merges, special } = JSON.parse(source.textContent);
  const ids = new Map();
  const specials = new Set(special);
  tokens.forEach((token, id) => { if (!specials.has(id)) ids.set(token, id); });
  const ranks = new Map();
  for (let at = 0; at < merges.length; at += 2) {
    const left = tokens[merges[at]], right = tokens[merges[at + 1]];
    ranks.set(`${left} ${right}`, at / 2);
  }
  const letters = [];
  const bytes = new Map();
  let next = 256;
  for (let byte = 0; byte < 256; byte += 1) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    letters[byte] = String.fromCharCode(printable ? byte : next++);
    bytes.set(letters[byte], byte);
  }
  const blank = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
  const words = new RegExp(`'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^${blank}\\p{L}\\p{N}]+|[${blank}]+(?![^${blank}])|[${blank}]+`, "gu");
  const encoder = new TextEncoder();
  const merge = (word) => {
    let parts = Array.from(encoder.encode(word), (byte) => letters[byte]);
    for (;;) {
      let best = Infinity, pair = "";
      for (let at = 0; at + 1 < parts.length; at += 1) {
        const rank = ranks.get(`${parts[at]} ${parts[at + 1]}`);
        if (rank < best) { best = rank; pair = `${parts[at]} ${parts[at + 1]}`; }
      }
      if (!pair) return parts;
      const joined = [];
      for (let at = 0; at < parts.length; at += 1) {
        if (at + 1 < parts.length && `${parts[at]} ${parts[at + 1]}` === pair) { joined.push(parts[at] + parts[at + 1]); at += 1; }
        else joined.push(parts[at]);
      }
      parts = joined;
    }
  };
  const readable = (token) => {
    const raw = Uint8Array.from(token, (letter) => bytes.get(letter));
    try { return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(raw); }
    catch { return [...raw].map((byte) => `⟨${byte.toString(16).toUpperCase().padStart(2, "0")}⟩`).join(""); }
  };
  const LONGEST_WORD = 2000, MOST_SHOWN = 2000;
  const segment = () => {
    const text = element("try").value.toWellFormed ? element("try").value.toWellFormed() : element("try").value;
    const found = [];
    for (const [word] of text.matchAll(words)) {
      const whole = [...word];
      for (let at = 0; at < whole.length; at += LONGEST_WORD) found.push(...merge(whole.slice(at, at + LONGEST_WORD).join("")));
    }
    element("token-count").textContent = String(found.length);
    element("character-count").textContent = String([...text].length);
    element("pieces").replaceChildren(...found.slice(0, MOST_SHOWN).map((token) => {
      const piece = document.createElement("li"), number = document.createElement("small");
      piece.textContent = readable(token).replaceAll("\n", "⏎").replaceAll(" ", "␣").replace(/[\p{Cc}\p{Cf}]/gu, (sign) => `⟨${sign.codePointAt(0).toString(16).toUpperCase()}⟩`);
      number.textContent = String(ids.get(token));
      piece.dataset.id = number.textContent;
      piece.append(number);
      return piece;
    }));
  };
  element("try").addEventListener("input", segment);
  segment();
})();
