"""The attackers: tests that kill processes, fill disks and damage files, some thousand times, and count."""
