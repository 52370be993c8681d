(() => {
  "use strict";
  const all = (selector, root) => Array.from((root || document).querySelectorAll(selector));

  // Light or dark: the system's choice until the reader makes one.
  const theme = document.getElementById("theme");
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme || (prefersDark.matches ? "dark" : "light")) === "dark";
  const nameTheme = () => {
    theme.textContent = isDark() ? "light" : "dark";
    theme.setAttribute("aria-label", `Switch to ${theme.textContent}`);
  };
  theme.hidden = false;
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    nameTheme();
  });
  prefersDark.addEventListener("change", nameTheme);
  nameTheme();

  // The wall: each filter keeps what matches.
  for (const wall of all(".wall")) {
    const form = wall.querySelector("form");
    if (!form) continue;
    const tiles = all(".tile", wall);
    const show = () => {
      const wanted = new FormData(form);
      const words = String(wanted.get("search") || "").toLocaleLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const tile of tiles) {
        const fits = ["kind", "style", "data"].every((key) => !wanted.get(key) || tile.dataset[key] === wanted.get(key))
          && words.every((word) => tile.dataset.search.includes(word));
        tile.hidden = !fits;
        shown += fits ? 1 : 0;
      }
      form.querySelector(".count").textContent = `${shown} of ${tiles.length} shown`;
    };
    form.hidden = false;
    form.addEventListener("input", show);
    form.addEventListener("submit", (event) => event.preventDefault());
    show();
  }

  // Tables: press a heading to sort; empty cells come last either way.
  for (const table of all("table.sortable")) {
    const headings = all("thead th", table);
    headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
      const now = heading.getAttribute("aria-sort");
      const up = column ? now === "descending" : now !== "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => {
        const cell = row.children[column];
        const data = cell.querySelector("data");
        return column ? (data ? Number(data.value) : null) : cell.textContent;
      };
      const body = table.tBodies[0];
      const rows = Array.from(body.rows).map((row) => [key(row), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        const order = typeof a === "number" ? a - b : a.localeCompare(b);
        return up ? order : -order;
      });
      body.append(...rows.map(([, row]) => row));
    }));
  }

  // Searches: a dial over t; every ranking was computed before.
  for (const gallery of all(".gallery")) {
    const data = JSON.parse(document.getElementById(gallery.dataset.gallery).textContent);
    const dial = gallery.querySelector(".dial");
    const range = dial.querySelector("input");
    const cards = all(".search", gallery);
    const cursors = all(".chart", gallery);
    const shelves = cards.map((card, q) => {
      const shelf = card.querySelector(".shelf");
      return data.top[0][q].map(() => {
        const place = document.createElement("li");
        const image = document.createElement("img");
        image.width = image.height = 36;
        place.append(image);
        shelf.append(place);
        return place;
      });
    });
    const turn = (stop) => {
      range.value = stop;
      range.setAttribute("aria-valuetext", data.stops[stop]);
      dial.querySelector(".stop").textContent = data.stops[stop];
      const reading = data.readings[stop] || {};
      dial.querySelector(".readings").replaceChildren(...Object.entries(reading)
        .filter(([, value]) => value !== null)
        .map(([name, value]) => {
          const item = document.createElement("span");
          const number = document.createElement("b");
          number.textContent = `${(100 * value).toFixed(1)} %`;
          item.append(name, " ", number);
          return item;
        }));
      cards.forEach((card, q) => {
        const counts = data.values.map(() => 0);
        data.top[stop][q].forEach((picture, i) => {
          const value = data.value[picture];
          const place = shelves[q][i];
          counts[value] += 1;
          place.className = `v${value}`;
          place.firstChild.alt = data.values[value];
          if (data.pictures[picture]) place.firstChild.src = data.pictures[picture];
          else place.firstChild.removeAttribute("src");
        });
        const bar = card.querySelector(".composition");
        all(".part", bar).forEach((part, v) => { part.style.flexGrow = counts[v]; });
        bar.setAttribute("aria-label", data.values.map((name, v) => `${name} ${counts[v]}`).join(", "));
        all(".counts data", card).forEach((number, v) => { number.value = number.textContent = counts[v]; });
      });
      for (const chart of cursors) {
        const { x0, x1, left, right } = chart.dataset;
        const share = (data.ts[stop] - Number(x0)) / (Number(x1) - Number(x0));
        const x = Number(left) + share * (Number(right) - Number(left));
        const cursor = chart.querySelector(".cursor");
        cursor.removeAttribute("hidden");
        cursor.setAttribute("x1", x);
        cursor.setAttribute("x2", x);
      }
      all("[data-stop]", dial).forEach((button) => {
        button.setAttribute("aria-pressed", String(Number(button.dataset.stop) === stop));
      });
    };
    dial.hidden = false;
    range.addEventListener("input", () => turn(Number(range.value)));
    all("[data-stop]", dial).forEach((button) => button.addEventListener("click", () => turn(Number(button.dataset.stop))));
    turn(Number(range.getAttribute("value")));
  }

  // On paper nothing can be opened or scrolled to, so everything is open, and every picture there.
  addEventListener("beforeprint", () => {
    all("details").forEach((fold) => { fold.open = true; });
    all("img[loading]").forEach((image) => { image.loading = "eager"; });
  });
})();
