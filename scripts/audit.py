#!/usr/bin/env python3
"""Compare the versions of requirements.lock with the published advisories, by pip-audit.

    scripts/audit.py

pip-audit runs from an environment of its own, which is removed afterwards. Where no package index is reachable, or it
has no advisories, the audit is skipped, and a line says so: pip-audit alone would say "no known vulnerabilities" of
packages that it could not look up. The exit code is 1 if there is an advisory, and 0 otherwise.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"
SECONDS = 300  # for the installation and for the audit
ANSWER = "15"  # seconds that pip-audit waits for one answer of the index


def main() -> None:
    """Audit the lock file, and say what was found."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = run(Path(folder))
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            report = {"failed": str(error).splitlines()[0]}
    lines, code = summarise(report)
    print("\n".join(lines))
    sys.exit(code)


def run(folder: Path) -> dict[str, Any]:
    """Return the report of pip-audit.

    Raises:
      OSError, SubprocessError: it cannot be installed or does not end.
      ValueError: it wrote no report.
    """
    report = folder / "report.json"
    command = [*install(folder / "venv"), "--requirement", str(LOCK), "--require-hashes", "--disable-pip"]
    command += ["--timeout", ANSWER, "--progress-spinner", "off", "--format", "json", "--output", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    if not report.exists():
        raise ValueError((done.stderr.strip() or "no report").splitlines()[-1])
    return json.loads(report.read_text("utf-8"))


def install(environment: Path) -> list[str]:
    """Return the command of pip-audit, which is installed for this run alone."""
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "pip-audit"]
    for command in (
        [sys.executable, "-m", "venv", str(environment)],
        [str(environment / "bin" / "pip"), "install", "--quiet", "pip-audit"],
    ):
        subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
    return [str(environment / "bin" / "pip-audit")]


def summarise(report: dict[str, Any]) -> tuple[list[str], int]:
    """Return what is said of a report, and the exit code."""
    packages = report.get("dependencies", [])
    audited = [package for package in packages if "skip_reason" not in package]
    if not audited:
        reason = report.get("failed") or f"the index told nothing of {len(packages)} packages"
        return [f"audit skipped: {reason}"], 0
    lines = [
        f"{package['name']} {package['version']}: {fault['id']}, mended in {', '.join(fault['fix_versions']) or 'none'}"
        for package in audited
        for fault in package["vulns"]
    ]
    unknown = len(packages) - len(audited)
    looked_at = f"{len(audited)} packages looked at" + (
        f", {unknown} unknown to the index" if unknown else ""
    )
    return [*lines, f"audit: {len(lines)} advisories, {looked_at}"], int(bool(lines))


if __name__ == "__main__":
    main()
