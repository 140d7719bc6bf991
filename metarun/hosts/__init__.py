"""Several processes that train one run together, on one host or on many.

placement.py         which process of how many this one is, and where process 0 listens
guardian.py          the parent of such a process: it turns the runtime's sudden end into three lines and an exit code
meeting.py           how the processes find each other
processes.py         what they tell each other, and who writes
failure_reports.py   the failure of one, as the others hear of it
transfers.py         arrays that travel between them

`placement` and `guardian` import no jax, because the guardian forks before jax is there.
"""
