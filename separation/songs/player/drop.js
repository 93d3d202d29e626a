/** Songs that are dropped on the page or chosen go to `take`, as an array of files. */
function receive(take) {
  const drop = document.getElementById("drop");
  const pick = document.getElementById("pick");
  document.getElementById("choose").addEventListener("click", () => pick.click());
  pick.addEventListener("change", () => (take([...pick.files]), (pick.value = "")));
  for (const event of ["dragenter", "dragover"]) {
    addEventListener(event, (over) => (over.preventDefault(), drop.classList.add("over")));
  }
  addEventListener("dragleave", (left) => left.relatedTarget ?? drop.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take([...event.dataTransfer.files]);
  });
}

/** A new row of the queue, whose button calls `remove`. */
function addRow(remove) {
  const row = document.createElement("li");
  row.innerHTML =
    '<span class="title"></span><span class="state"></span><progress max="1"></progress>' +
    '<button class="remove" type="button">×</button>';
  row.querySelector(".remove").addEventListener("click", remove);
  document.getElementById("queue").append(row);
  return row;
}
