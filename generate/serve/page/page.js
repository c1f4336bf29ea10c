"use strict";
// The page of `corpus serve`: streams answers of /v1/chat/completions, or continuations of /v1/completions.

const WORDS = {
  chat_lead: ["Nothing is stored: closing this tab forgets the conversation. A model's answers may be wrong.", "对话不会保存，关闭本页即忘。模型的回答可能有误。"],
  text_lead: ["This model was not tuned to answer: it continues your text.", "此模型未经问答微调：它会续写你给的文字。"],
  chat_label: ["Your question (Enter sends, Shift+Enter breaks the line)", "你的问题（回车发送，Shift+回车换行）"],
  text_label: ["The beginning of a text (Enter sends, Shift+Enter breaks the line)", "文章的开头（回车发送，Shift+回车换行）"],
  writing: ["writing …", "正在写……"],
  told: ["{0} tokens, {1} a second, seed {2}{3}", "{0} 个词元，每秒 {1} 个，种子 {2}{3}"],
  length: [", cut at the limit of tokens", "，到词元上限为止"],
  time: [", cut because the time was up", "，因超时中断"],
  shutdown: [", cut because the server was stopped", "，因服务停止中断"],
  lost: ["The connection was lost.", "连接中断。"],
  wrong_key: ["The key is wrong.", "密钥不对。"],
  too_long: ["The text is longer than the model can read ({0} tokens, with the answer). Shorten it, or allow fewer tokens.", "文字超出模型能读的长度（连同回答共 {0} 个词元）。请缩短，或减少词元上限。"],
  dropped: ["The conversation is longer than the model can read: the oldest questions were left out.", "对话超出模型能读的长度，已略去最早的问答。"],
  busy: ["The server is busy. Try again in {0} s.", "服务正忙，请 {0} 秒后再试。"],
  failed: ["The server answered: {0}", "服务返回：{0}"],
};

const $ = (id) => document.getElementById(id);
const page = document.documentElement;
let model = null;
let key = "";
let turns = [];
let reading = null;
let state = null;

const language = () => page.dataset.language;
const fill = (text, values) => text.replace(/\{(\d)\}/g, (_, place) => values[place]);
const say = (name, ...values) => fill(WORDS[name][language() === "zh" ? 1 : 0], values);

function setLanguage(name) {
  page.dataset.language = name;
  page.lang = name === "zh" ? "zh-CN" : "en";
  $("language").textContent = name === "zh" ? "English" : "中文";
  $("language").lang = name === "zh" ? "en" : "zh";
  for (const each of document.querySelectorAll("[data-zh]")) each.setAttribute("aria-label", each.dataset[name]);
  if (model) {
    $("lead").textContent = say(model.chat ? "chat_lead" : "text_lead");
    $("label").textContent = say(model.chat ? "chat_label" : "text_label");
  }
  showState();
  for (const turn of turns) showTold(turn);
}

function setState(bad, ...words) {
  state = words.length ? { bad, words } : null;
  showState();
}

function showState() {
  $("state").textContent = state ? say(...state.words) : "";
  $("state").classList.toggle("bad", Boolean(state && state.bad));
}

function showTold(turn) {
  if (!turn.told) return;
  const { tokens, seconds, seed, end } = turn.told;
  turn.line.textContent = say("told", tokens, (tokens / Math.max(seconds, 0.001)).toFixed(0), seed, WORDS[end] ? say(end) : "");
}

const headers = () => ({ "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) });

async function greet() {
  let response;
  try {
    response = await fetch("v1/models", { headers: headers() });
  } catch {
    setState(true, "lost");
    return;
  }
  $("door").hidden = response.status !== 401;
  $("ask").hidden = response.status === 401;
  if (response.status === 401) {
    setState(true, ...(key ? ["wrong_key"] : []));
    $("key").focus();
    return;
  }
  if (!response.ok) {
    setState(true, "failed", response.status);
    return;
  }
  model = (await response.json()).data[0];
  $("model").textContent = model.id;
  document.title = `${model.id} · corpus serve`;
  $("max_tokens").value = Math.max(1, Math.min(256, Math.floor(model.context_length / 2)));
  setState(false);
  setLanguage(language());
  $("text").focus();
}

function setWriting(controller) {
  reading = controller;
  $("send").disabled = Boolean(controller);
  $("new").disabled = Boolean(controller);
  $("stop").disabled = !controller;
  $("turns").setAttribute("aria-busy", String(Boolean(controller)));
}

function show(question) {
  const item = document.createElement("div");
  const parts = ["asked", "answer", "told"].map((name) => {
    const part = document.createElement("p");
    part.className = name;
    item.append(part);
    return part;
  });
  item.className = model.chat ? "turn writing" : "turn text writing";
  parts[0].textContent = question;
  $("turns").append(item);
  const turn = { question, answer: "", item, said: parts[1], line: parts[2], told: null };
  turns.push(turn);
  follow(true);
  return turn;
}

function follow(always) {
  const box = $("turns");
  if (always || box.scrollHeight - box.scrollTop - box.clientHeight < 120) box.scrollTop = box.scrollHeight;
}

function settings() {
  const body = { model: model.id, stream: true, stream_options: { include_usage: true } };
  for (const name of ["temperature", "top_p", "top_k", "max_tokens", "seed"]) {
    if ($(name).value !== "") body[name] = Number($(name).value);
  }
  return body;
}

function messages(earlier, question) {
  const said = earlier.filter((turn) => turn.answer.trim()).flatMap((turn) => [
    { role: "user", content: turn.question },
    { role: "assistant", content: turn.answer },
  ]);
  return [...said, { role: "user", content: question }];
}

/** The response; a conversation that is too long is asked again without its oldest questions. */
async function request(question, earlier, signal) {
  for (let from = 0; ; from += 1) {
    const rest = earlier.slice(from);
    const [path, body] = model.chat
      ? ["v1/chat/completions", { ...settings(), messages: messages(rest, question) }]
      : ["v1/completions", { ...settings(), prompt: question }];
    const response = await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
    if (response.ok) {
      if (from) setState(false, "dropped");
      return response;
    }
    const error = (await response.json()).error;
    if (error.code === "context_length_exceeded" && model.chat && rest.length) continue;
    if (error.code === "context_length_exceeded") throw { words: ["too_long", model.context_length] };
    if (response.status === 429 || response.status === 503) throw { words: ["busy", response.headers.get("Retry-After")] };
    throw { words: ["failed", error.message] };
  }
}

/** The JSON of each server-sent event. */
async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw { words: ["lost"] };
    const pieces = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = pieces.pop();
    for (const piece of pieces) {
      const data = piece.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

/** The text of a turn, drawn at most once in 50 ms: a model may write faster than a browser draws. */
function drawing(turn) {
  let due = 0;
  const draw = () => {
    clearTimeout(due);
    due = 0;
    turn.said.textContent = turn.answer;
    follow(false);
  };
  return { soon: () => { due ||= setTimeout(draw, 50); }, now: draw };
}

async function write(turn, earlier, controller) {
  const text = drawing(turn);
  const told = { tokens: 0, seconds: 0, seed: "", end: "" };
  let started = 0;
  try {
    const response = await request(turn.question, earlier, controller.signal);
    for await (const chunk of events(response.body)) {
      if (chunk.error) throw { words: ["failed", chunk.error.message] };
      started ||= performance.now();
      told.seed = chunk.seed;
      if (chunk.usage) told.tokens = chunk.usage.completion_tokens;
      for (const choice of chunk.choices) {
        turn.answer += (model.chat ? choice.delta.content : choice.text) || "";
        told.end = choice.ended_by || told.end;
      }
      text.soon();
    }
    told.seconds = (performance.now() - started) / 1000;
    turn.told = told;
    if (state && state.words[0] === "writing") setState(false);
  } catch (error) {
    if (error.name === "AbortError") setState(false);
    else setState(true, ...(error.words || ["lost"]));
  } finally {
    text.now();
    turn.item.classList.remove("writing");
    showTold(turn);
  }
}

async function send() {
  const question = $("text").value.trim();
  if (!question || reading || !model) return;
  if (!$("ask").checkValidity()) {
    $("settings").open = true; // so that the browser can show which field is wrong
    $("ask").reportValidity();
    return;
  }
  const controller = new AbortController();
  const earlier = turns.slice();
  const turn = show(question);
  $("text").value = "";
  setWriting(controller);
  setState(false, "writing");
  await write(turn, earlier, controller);
  setWriting(null);
  $("text").focus();
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return; // 229: an input method
  event.preventDefault();
  send();
});
$("stop").addEventListener("click", () => reading && reading.abort());
$("new").addEventListener("click", () => {
  turns = [];
  $("turns").replaceChildren();
  setState(false);
  $("text").focus();
});
$("language").addEventListener("click", () => setLanguage(language() === "zh" ? "en" : "zh"));
$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value.trim();
  greet();
});
setLanguage((navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en");
greet();
