// Which parts this report has.

const count = runs.length === 1 ? "1 run" : `${runs.length} runs`;
document.getElementById("about").textContent = `${count}, reported ${report.made}`;
makeChips();
makeTabs([
  ["Overview", overview],
  runs.some((run) => Object.keys(run.series).length) && ["Curves", curves],
  runs.some((run) => Object.keys(run.scores).length || run.tables.length) && ["Scores", scores],
  runs.some((run) => run.confusions.length) && ["Confusion", confusion],
  runs.some((run) => Object.keys(run.settings).length) && ["Settings", settings],
  (report.songs.length || runs.some((run) => run.tables.some((table) => table.name === "songs"))) && ["Listen", listen],
].filter(Boolean));
