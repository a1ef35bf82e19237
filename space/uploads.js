/* Gradio's audio component refuses what the browser does not call audio, as videos; the page reads any of it. */
(() => {
  const audio = (file) =>
    file.type.startsWith("audio/") ? file : new File([file], file.name, { type: "audio/mpeg" });

  function audioOnly(files) {
    const carrier = new DataTransfer();
    for (const file of files) carrier.items.add(audio(file));
    return carrier.files;
  }

  function before(kind, act) {
    document.addEventListener(kind, (event) => {
      const input = event.target.closest?.("#recording")?.querySelector("input[type=file]");
      if (input) act(input, event);
    }, true);
  }

  before("click", (input) => input.removeAttribute("accept")); // or the browser's dialog hides them
  before("change", (input, event) => {
    if (event.target === input) input.files = audioOnly(input.files);
  });
  before("drop", (input, event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    event.stopPropagation();
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
})();
