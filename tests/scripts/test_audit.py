"""scripts/audit.py: what it says of a report of pip-audit. What nobody could look up is not called safe."""

import importlib.util
import subprocess
from pathlib import Path

SPEC = importlib.util.spec_from_file_location("audit", Path(__file__).parents[2] / "scripts" / "audit.py")
script = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)

SKIPPED = {"name": "jax", "skip_reason": "not found"}
SAFE = {"name": "numpy", "version": "2.0", "vulns": []}
HIT = {"name": "pillow", "version": "1.0", "vulns": [{"id": "CVE-1", "fix_versions": ["1.1", "2.0"]}]}


def test_an_advisory_is_named_and_fails():
    lines, code = script.summarise({"dependencies": [SAFE, HIT, SKIPPED]})
    assert lines[0] == "pillow 1.0: CVE-1, mended in 1.1, 2.0"
    assert lines[1] == "audit: 1 advisories, 2 packages looked at, 1 unknown to the index"
    assert code == 1


def test_no_advisory_is_no_fault():
    assert script.summarise({"dependencies": [SAFE]}) == (["audit: 0 advisories, 1 packages looked at"], 0)


def test_what_nobody_could_look_up_is_said_to_be_skipped():
    lines, code = script.summarise({"dependencies": [SKIPPED, SKIPPED]})
    assert lines == ["audit skipped: the index told nothing of 2 packages"] and code == 0


def test_an_audit_that_cannot_be_installed_is_skipped_with_its_reason(monkeypatch, capsys):
    def refuse(*_, **__):
        raise subprocess.CalledProcessError(1, ["pip"])

    monkeypatch.setattr(script.subprocess, "run", refuse)
    monkeypatch.setattr(script.shutil, "which", lambda name: None)
    try:
        script.main()
    except SystemExit as end:
        assert end.code == 0
    assert capsys.readouterr().out.startswith("audit skipped: Command '['pip']' returned")
