// A candidate pointed at is marked everywhere, and commands can be copied. The page says all it has to say without it.
(() => {
  const readout = document.getElementById("readout");
  const marked = number => document.querySelectorAll(`[data-n="${number}"]`);
  let hot = null;
  const point = event => {
    const owner = event.target instanceof Element ? event.target.closest("[data-n]") : null;
    const number = owner ? owner.dataset.n : null;
    if (number === hot) return;
    if (hot !== null) marked(hot).forEach(element => element.classList.remove("hot"));
    hot = number;
    if (hot === null) return;
    marked(hot).forEach(element => element.classList.add("hot"));
    const title = document.querySelector(`.dot[data-n="${hot}"] title`);
    const strip = document.querySelector(`#row-${hot} .strip`);
    if (!readout || !title || !strip) return;
    const words = document.createElement("p");
    words.textContent = title.textContent;
    readout.replaceChildren(words, strip.cloneNode(true));
  };
  document.addEventListener("pointerover", point);
  document.addEventListener("focusin", point);

  const copy = async (code, button) => {
    let done = false;
    try {
      await navigator.clipboard.writeText(code.textContent);
      done = true;
    } catch {
      // Without leave to write to the clipboard the text is at least selected.
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      done = document.execCommand("copy");
    }
    button.textContent = done ? "Copied" : "Selected";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  };
  document.querySelectorAll(".command").forEach(command => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-live", "polite");
    button.setAttribute("aria-label", `Copy: ${command.querySelector("h3").textContent}`);
    button.addEventListener("click", () => copy(command.querySelector("code"), button));
    command.append(button);
  });
  document.documentElement.dataset.report = "ready";
})();
